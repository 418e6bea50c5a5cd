"""`tutelage predict`: what the student of a finished run finds in inputs of one's own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli._parser import Commands, add_command
from tutelage.errors import UserError

if TYPE_CHECKING:
    from tutelage.recipes import Recipe

EXAMPLES = """
tutelage predict runs/mouse image.png
tutelage predict runs/mouse frames/*.png --draw
tutelage predict runs/mouse image.png --json
tutelage predict runs/citeulike-unkd 42 17 --top 20
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "predict",
        "answer inputs of one's own with the student of a finished run",
        examples=EXAMPLES,
    )
    command.add_argument("source", metavar="RUN", help="folder of a finished run")
    command.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="what the task reads: image files, ids of users"
    )
    command.add_argument(
        "--draw", action="store_true", help="write <image>-predicted.png with what was found"
    )
    command.add_argument(
        "--out", metavar="DIR", help="folder of the drawings (default: beside each image)"
    )
    command.add_argument(
        "--top", type=int, default=10, help="answers an input, where they are ranked (default 10)"
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON an input")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print what is found, input by input; the data of the run is not needed."""
    from tutelage.cli.networks import open_run, without_teachers
    from tutelage.core.prediction import PredictsFromRun

    if arguments.out is not None and not arguments.draw:
        raise UserError("--out is the folder of drawings, but nothing is drawn; add --draw")
    folder = Path(arguments.source)
    recipe = without_teachers(open_run(folder)).build()
    if isinstance(recipe.task, PredictsFromRun):
        if arguments.draw:
            raise UserError("there is nothing to draw; leave --draw out")
        answer = recipe.task.predictor(folder, arguments.top)
        for source in arguments.inputs:
            _print(source, answer(source).record, None, arguments.json)
        return 0
    _run_student(recipe, folder, arguments)
    return 0


def _run_student(recipe: Recipe, folder: Path, arguments: argparse.Namespace) -> None:
    """Print, and draw, what the student of a run finds in each input."""
    import torch

    from tutelage.core.prediction import Predicts, ReadsInput
    from tutelage.core.taps import call
    from tutelage.engine.checks.student_facts import read_student_facts
    from tutelage.engine.finished_run import shipped_student

    drawings = _drawings(arguments.inputs, arguments.out) if arguments.draw else {}
    data, task = recipe.data, recipe.task
    if not isinstance(data, ReadsInput) or not isinstance(task, Predicts):
        raise UserError(
            f"{folder} was trained for {type(task).__name__} on {type(data).__name__}, which "
            "cannot answer single inputs; use tutelage evaluate"
        )
    facts = read_student_facts(folder)
    names = [] if facts is None or facts.classes is None else facts.classes
    student = shipped_student(recipe, folder).eval()
    for source in arguments.inputs:
        batch = data.read_input(source)
        with torch.no_grad():
            output = call(student, task.inputs(batch))
        (prediction,) = task.predictions(output, batch, names)
        drawn = None
        if arguments.draw:
            if prediction.overlay is None or "source_image" not in batch:
                raise UserError(f"there is nothing to draw over {source}; leave --draw out")
            drawn = drawings[source]
            _draw(batch["source_image"][0], prediction.overlay, names, drawn)
        _print(source, prediction.record, drawn, arguments.json)


def _drawings(sources: Sequence[str], out: str | None) -> dict[str, Path]:
    """Return where the drawing of each image goes.

    Raises:
        UserError: If two images would be drawn to one file.
    """
    drawings: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for source in sources:
        image = Path(source).expanduser()
        folder = image.parent if out is None else Path(out).expanduser()
        path = folder / f"{image.stem}-predicted.png"
        if taken.setdefault(path, source) != source:
            raise UserError(
                f"{taken[path]} and {source} would both be drawn to {path}; give them in two calls "
                "with different --out"
            )
        drawings[source] = path
    return drawings


def _draw(image: Any, overlay: Any, names: list[str], path: Path) -> None:
    from tutelage.io import atomic
    from tutelage.report.drawing import draw_points

    picture = draw_points(image, overlay, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG")


def _print(source: str, record: Mapping[str, Any], drawn: Path | None, as_json: bool) -> None:
    if as_json:
        drawing = {} if drawn is None else {"drawing": str(drawn)}
        print(json.dumps({"input": source, **record, **drawing}))
        return
    print(source if drawn is None else f"{source} → {drawn}")
    for name, value in record.items():
        if isinstance(value, list):  # answers in their order
            rows = [(str(place), entry) for place, entry in enumerate(value, start=1)]
        else:
            rows = list(value.items()) if isinstance(value, Mapping) else [(name, value)]
        for key, entry in rows:
            print(f"  {key:<20} {_shown(entry)}")


def _shown(value: Any) -> str:
    """Return a value on one line.

    >>> _shown({"x": 12.345, "y": 3.0, "score": 0.5})
    'x 12.35  y 3  score 0.5'
    """
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_shown(entry)}" for name, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
