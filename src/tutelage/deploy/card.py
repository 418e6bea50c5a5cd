"""The model card of a student that is shared: its origin, its figures, how to load it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tutelage.engine.run_folder import RunFolder

# Task -> the kind of task by which the Hub lists models.
PIPELINES = {
    "Classification": "image-classification",
    "MultiLabelClassification": "image-classification",
    "OpenSetClassification": "image-classification",
    "Detection": "object-detection",
    "Segmentation": "image-segmentation",
    "Pose": "keypoint-detection",
    "Retrieval": "sentence-similarity",
}


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Attributes:
        name: of the repository.
        load: what `tutelage.load` takes.
        license: the Hub's name of a license.
        recipe: the sections of the resolved recipe; empty for a run that was made in Python.
        student: what student.json says.
        metrics: what metrics.json says.
        environment: what environment.json says.
        seeds: test metrics by seed, of all finished runs of the study that differ by seed only.
        own_code: class paths outside of known libraries.
    """

    name: str
    load: str
    license: str
    recipe: Mapping[str, Any]
    student: Mapping[str, Any]
    metrics: Mapping[str, Any]
    environment: Mapping[str, Any]
    seeds: Mapping[int, Mapping[str, float]]
    own_code: list[str]


def runs_of_study(run: Path) -> dict[int, dict[str, float]]:
    """Return the test metrics by seed, of the finished runs that differ from this one by seed only.

    A study writes `<method>/seed<n>`; a run by itself is alone.
    """
    folder = RunFolder(run)
    own = folder.metrics()
    seeds = {int(own["seed"]): own["test"]}
    if not run.resolve().name.startswith("seed"):
        return seeds
    recipe = _without_seed(run)
    for other in sorted(run.resolve().parent.glob("seed*")):
        if not (other / "metrics.json").is_file() or _without_seed(other) != recipe:
            continue
        metrics = RunFolder(other).metrics()
        seeds[int(metrics["seed"])] = metrics["test"]
    return dict(sorted(seeds.items()))


def read_recipe(run: Path) -> dict[str, Any]:
    """Return the sections of a run's resolved recipe; nothing for one that was made in Python."""
    path = run / "recipe.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def card(facts: CardFacts) -> str:
    """Return the text of README.md."""
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True)
    paragraphs = [
        f"---\n{header}---",
        f"# {facts.name}",
        _summary(facts),
        "## Figures",
        _figures(facts),
        "## How it was made",
        _origin(facts),
        "## How to load it",
        _loading(facts),
    ]
    return "\n\n".join(paragraphs) + "\n"


def class_name(section: Any) -> str | None:
    """Return the last part of a section's class path."""
    if isinstance(section, Mapping) and isinstance(section.get("class_path"), str):
        return str(section["class_path"]).rpartition(".")[2]
    return None


def _without_seed(run: Path) -> list[str]:
    path = run / "recipe.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines if not line.startswith("seed:")]


def _header(facts: CardFacts) -> dict[str, Any]:
    task = class_name(facts.recipe.get("task"))
    method = class_name(facts.recipe.get("method"))
    data = class_name(facts.recipe.get("data")) or "unknown"
    header: dict[str, Any] = {"library_name": "tutelage", "license": facts.license}
    pipeline = PIPELINES.get(task or "")
    if pipeline is not None:
        header["pipeline_tag"] = pipeline
    header["tags"] = ["knowledge-distillation", *([method.lower()] if method else [])]
    figures = [
        {"type": name, "name": name, "value": value}
        for name, value in facts.metrics["test"].items()
        if math.isfinite(value) and name != "num_samples"
    ]
    result = {
        "task": {"type": pipeline or "other"},
        "dataset": {"type": data.lower(), "name": data, "split": "test"},
        "metrics": figures,
    }
    header["model-index"] = [{"name": facts.name.rpartition("/")[2], "results": [result]}]
    return header


def _summary(facts: CardFacts) -> str:
    method = class_name(facts.recipe.get("method")) or "a method of tutelage"
    teacher = _teacher(facts)
    learned = f"distilled with {method} from {teacher}" if teacher else f"trained with {method}"
    sizes = facts.metrics["parameters"]
    size = f"{sizes['student']:,} parameters"
    if sizes.get("teacher"):
        size += f" (teacher: {sizes['teacher']:,})"
    data = class_name(facts.recipe.get("data"))
    where = f" on {data}" if data else ""
    return f"{facts.student.get('model', 'A network')} of {size}, {learned}{where}."


def _teacher(facts: CardFacts) -> str | None:
    teachers = facts.recipe.get("teachers") or {}
    if isinstance(facts.recipe.get("teacher"), Mapping):
        teachers = {"teacher": facts.recipe["teacher"]}
    names = [class_name(teacher.get("model")) or "a network" for teacher in teachers.values()]
    if names:
        return " and ".join(names)
    return "a teacher" if facts.metrics["parameters"].get("teacher") else None


def _figures(facts: CardFacts) -> str:
    """Return the table: this student, the mean and spread over seeds, the teacher."""
    several = len(facts.seeds) > 1
    teacher = (facts.metrics.get("teacher") or {}).get("test", {})
    titles = ["test", "this student"]
    titles += [f"mean ± standard deviation of {len(facts.seeds)} seeds"] if several else []
    titles += ["teacher"] if teacher else []
    rows = [titles, ["---"] * len(titles)]
    for name, value in facts.metrics["test"].items():
        row = [name, _number(value)]
        if several:
            values = [metrics[name] for metrics in facts.seeds.values() if name in metrics]
            row.append(_spread(values))
        if teacher:
            row.append(_number(teacher[name]) if name in teacher else "–")
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if several:
        return f"{table}\n\nSeeds: {', '.join(map(str, facts.seeds))}."
    return f"{table}\n\nOne run, so there is no spread; differences of a few points may be chance."


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "–"
    return f"{_number(statistics.mean(values))} ± {statistics.stdev(values):.2g}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _origin(facts: CardFacts) -> str:
    recipe = facts.recipe
    environment = facts.environment
    packages = environment.get("packages", {})
    train = recipe.get("train") or {}
    labels = recipe.get("num_labels")
    lines = {
        "data": class_name(recipe.get("data")),
        "labeled samples": "all" if labels is None and recipe else labels,
        "teacher": _teacher(facts) or "none",
        "method": _call(recipe.get("method")),
        "epochs": train.get("epochs"),
        "checkpoint": f"epoch {facts.metrics[facts.metrics['checkpoint']]['epoch']} "
        f"({facts.metrics['checkpoint']})",
        "seed": facts.metrics["seed"],
        "training time": f"{facts.metrics['seconds']:.0f} s on "
        f"{environment.get('gpu') or environment.get('cpu')}",
        "software": f"tutelage {environment.get('tutelage')} (commit "
        f"{environment.get('commit') or 'unknown'}), torch {packages.get('torch')}",
        "made": environment.get("time"),
        "license": facts.license,
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items() if value is not None)


def _call(section: Any) -> str | None:
    """Return a class with its arguments, as it would be called."""
    name = class_name(section)
    if name is None:
        return None
    arguments = section.get("init_args") or {}
    simple = {key: value for key, value in arguments.items() if not isinstance(value, (dict, list))}
    return f"{name}({', '.join(f'{key}={value}' for key, value in simple.items())})"


def _loading(facts: CardFacts) -> str:
    given = json.dumps(facts.load)
    lines = ["```python", "import tutelage", ""]
    if "recipe" not in facts.student:
        lines += [f"model = tutelage.load({given}, recipe)  # made in Python: give its recipe"]
    elif facts.own_code:
        lines += [f"model = tutelage.load({given}, trust_code=True)"]
    else:
        lines += [f"model = tutelage.load({given})"]
    lines += ["model.predict(...)  # such as the path of an image", "model.network", "```"]
    text = "\n".join(lines)
    if facts.own_code:
        text += (
            f"\n\nIt needs code that is not in this repository: {', '.join(facts.own_code)}. "
            "Loading imports and runs it."
        )
    return text + (
        "\n\n`model.safetensors` holds the same weights under the name that "
        "`PyTorchModelHubMixin.from_pretrained` looks for. What `student.json` says of the input "
        "(mean, std, size) is then left to you; `tutelage.load` applies it."
    )
