"""`tutelage advise`: which method, which weights, by what we measured on like recipes."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from tutelage.cli._parser import OVERRIDES, Commands, add_command, add_recipe, add_teacher_dir

if TYPE_CHECKING:
    from torch import nn

    from tutelage.cli.advice_facts import Facts, Sentence
    from tutelage.core import Method
    from tutelage.engine.dry_run import Plan
    from tutelage.engine.teacher_facts import TeacherFacts
    from tutelage.recipes import Recipe
    from tutelage.tune.candidates import Candidate

WIDTH = 80
ONE_CLASS_EACH = (
    "Classification",
    "OpenSetClassification",
)  # tasks whose samples have one class each
EXAMPLES = """
tutelage advise classification/digits/kd
tutelage advise own/rcka.yaml --num_labels 4000
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "advise",
        "which method and weights, by our studies; trains nothing",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    add_recipe(command)
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Look at the recipe, and print advice with the study behind each sentence."""
    from tutelage.cli.advice import advise
    from tutelage.cli.advice_facts import settings_of
    from tutelage.cli.teachers import resolve_teachers, without_weights
    from tutelage.engine import plan
    from tutelage.engine.teacher_facts import teacher_on_validation
    from tutelage.recipes import parse_recipe
    from tutelage.tune.candidates import Candidate

    parsed = parse_recipe(arguments.source, overrides)
    parsed, teachers = resolve_teachers(parsed, Path(arguments.teacher_dir))
    is_trained = all(teacher.ready for teacher in teachers)
    recipe = without_weights(parsed, teachers).build()
    planned = plan(recipe)
    known = None
    if is_trained and parsed.teachers():
        known = teacher_on_validation(parsed.build())
    facts = facts_of(recipe, settings_of(parsed), planned, known)
    print(_fill(_described(parsed.name, facts, known, planned)))
    if not is_trained:
        print(
            _fill(
                "The teacher is not trained yet; `tutelage train RECIPE --teachers-only` does it, "
                "and then its accuracy and confidence are known here."
            )
        )
    print()
    for number, sentence in enumerate(advise(facts), 1):
        print(_sentence(number, sentence))
    _print_next(arguments.source, Candidate.of(parsed.path.stem, parsed, parsed))
    return 0


def _print_next(source: str, candidate: Candidate) -> None:
    """Print a command that `tune` takes: it refuses a recipe without numbers to search for."""
    if candidate.numbers:
        print("\nnext, with this recipe or its folder:")
    else:
        source = str(Path(source).parent)
        print(f"\nnext, with its folder, since {candidate.name} itself has nothing to tune:")
    print(f"  tutelage tune {quote(source)} --trials 20 --out runs/tune")


def facts_of(
    recipe: Recipe, settings: Mapping[str, Any], planned: Plan, known: TeacherFacts | None
) -> Facts:
    """Return what advice rests on.

    Args:
        recipe: built.
        settings: of its method, see `Facts`.
        planned: its dry run.
        known: its teacher on validation data; None if that is not known.
    """
    from tutelage.cli.advice_facts import Facts

    networks = [] if recipe.teacher is None else [recipe.teacher.model]
    teacher = networks[0] if networks else None
    parameters = planned.parameters
    top1 = None if known is None else known.metrics.get("top1")
    return Facts(
        task=_task_name(recipe.task),
        method=_method_name(recipe.method),
        labels=planned.num_samples["train"],
        classes=getattr(recipe.task, "num_classes", None),
        teacher=None if teacher is None else kind_of(teacher),
        student=kind_of(recipe.student.model),
        ratio=parameters["teacher"] / parameters["student"] if "teacher" in parameters else None,
        teacher_top1=None if top1 is None else 100 * top1,
        cap=recipe.train.gradient_cap,
        pulls={
            scale.term: scale.ratio
            for scale in planned.terms
            if scale.ratio is not None and scale.term != "task"
        },
        settings=settings,
        steps=planned.steps,
        pairs={student: teacher for student, teacher, _ in planned.pairs},
    )


def kind_of(network: nn.Module) -> str:
    """Return what a network is made of, in a word: `ViT` of attention, `CNN` of convolutions."""
    from torch import nn

    modules = list(network.modules())
    if any("Attention" in type(module).__name__ for module in modules):
        return "ViT"
    if any(isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 for module in modules):
        return "CNN"
    return type(network).__name__


def _task_name(task: object) -> str:
    """Return the class of a task, or the one of ours that it is derived from."""
    ours = (cls for cls in type(task).__mro__ if cls.__module__.startswith("tutelage.tasks."))
    return next((cls.__name__ for cls in ours), type(task).__name__)


def _method_name(method: Method) -> str:
    from tutelage.core._methods import single_methods

    return " + ".join(type(single).__name__ for single in single_methods(method))


def _described(name: str, facts: Facts, known: TeacherFacts | None, planned: Plan) -> str:
    """Return the facts in words."""
    parts = [f"{facts.labels:,} labeled training samples"]
    if facts.classes:
        share = f" ({facts.labels / facts.classes:.0f} labels a class)"
        is_one_each = facts.task in ONE_CLASS_EACH
        parts.append(f"{facts.classes} classes{share if is_one_each else ''}")
    sizes = planned.parameters
    student = f"a {facts.student} of {sizes['student']:,} parameters"
    if facts.ratio is None:
        parts.append(f"{student}, and not one teacher")
    else:
        parts.append(
            f"{student} from a {facts.teacher} of {sizes['teacher']:,} ({facts.ratio:.3g} times as "
            "many)"
        )
    if known is not None:
        figures = " ".join(
            f"{metric} {value:.4g}"
            for metric, value in known.metrics.items()
            if metric != "num_samples"
        )
        sure = "" if known.confidence is None else f", mean confidence {known.confidence:.3f}"
        parts.append(f"the teacher on validation data: {figures}{sure}")
    pulls = ", ".join(f"{term} {ratio:.2g}" for term, ratio in facts.pulls.items())
    if pulls:
        parts.append(f"terms pull so many times as hard as the labels: {pulls}")
    if planned.pairs:
        pairs = ", ".join(f"{own}: {other} ({cka:.2f})" for own, other, cka in planned.pairs)
        parts.append(f"layers that agree most now, by CKA: {pairs}")
    return f"{name}: {'; '.join(parts)}."


def _sentence(number: int, sentence: Sentence) -> str:
    text = sentence.text
    if sentence.studies:
        text += f" [{', '.join(sentence.studies)}]"
    return textwrap.fill(
        f"{number}. {text}", WIDTH, subsequent_indent="   ", break_on_hyphens=False
    )


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
