"""`tutelage predict`: what the student of a finished run finds in inputs of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from tutelage.cli._parser import Commands, add_command
from tutelage.errors import UserError

T = TypeVar("T")

BESIDE = "beside"  # --draw without a folder
EXAMPLES = """
tutelage predict runs/flowers rose.jpg photos/ --top 3
tutelage predict runs/mouse frames/*.png --draw
tutelage predict runs/detector photos/ --draw drawn --json
tutelage predict runs/citeulike-unkd 42 17 --top 20
tutelage predict runs/cranfield "heat transfer in slip flow" --top 5
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
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="what the task reads: image files, folders of images, ids of users, texts of queries",
    )
    command.add_argument(
        "--draw",
        metavar="DIR",
        nargs="?",
        const=BESIDE,
        help="write <image>-predicted.png with what was found, beside each image or into DIR",
    )
    command.add_argument(
        "--top", type=int, help="answers an input, where they are ranked (default: the task's)"
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON an input")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print what is found, input by input; the data of the run is not needed."""
    from tutelage.cli.networks import open_run
    from tutelage.core.prediction import PredictsFromRun
    from tutelage.deploy import load
    from tutelage.engine.hub import is_hub
    from tutelage.io import expanded

    source = arguments.source
    if not is_hub(source) and not (expanded(source) / "student.json").is_file():
        open_run(expanded(source))  # says what is missing
    model = load(source)
    if isinstance(model.task, PredictsFromRun):
        if arguments.draw is not None:
            raise UserError("there is nothing to draw; leave --draw out")
        answers = _EachInput(model.answerer(arguments.top), arguments.inputs)
        for place, answer in enumerate(answers):
            _print(answers.sources[place], answer.record, None, arguments.json)
        answers.refuse_failures()
        return 0
    sources = _images(arguments.inputs)
    drawings = {} if arguments.draw is None else _drawings(sources, arguments.draw)
    inputs = _EachInput(model.reader(), sources)
    for place, (batch, answer) in enumerate(model.answers_to(inputs, arguments.top)):
        source = inputs.sources[place]
        if drawings and (answer.overlay is None or "source_image" not in batch):
            raise UserError(f"there is nothing to draw over {source}; leave --draw out")
        if drawings:
            _draw(batch["source_image"][0], answer.overlay, model.classes.names, drawings[source])
        _print(source, answer.record, drawings.get(source), arguments.json)
    inputs.refuse_failures()
    return 0


class _EachInput(Generic[T]):
    """Applies a function to inputs one by one, and goes on after one that it refuses.

    Attributes:
        sources: those that it took so far.
    """

    def __init__(self, function: Callable[[str], T], sources: Sequence[str]) -> None:
        self.sources: list[str] = []
        self._function = function
        self._all = sources
        self._errors: list[UserError] = []

    def __iter__(self) -> Iterator[T]:
        for source in self._all:
            try:
                result = self._function(source)
            except UserError as error:
                self._errors.append(error)
                continue
            self.sources.append(source)
            yield result

    def refuse_failures(self) -> None:
        """Raise if an input was refused, with all of their reasons.

        Raises:
            UserError: If so.
        """
        if len(self._all) == 1 and self._errors:
            raise self._errors[0]
        if self._errors:
            for error in self._errors:
                print(f"left out: {error}", file=sys.stderr)
            raise UserError(
                f"{len(self._errors)} of {len(self._all)} inputs have no answer; the others were "
                "answered"
            )


def _images(inputs: Sequence[str]) -> list[str]:
    """Return the inputs, with the images of a folder in its place, and without own drawings."""
    from tutelage.deploy.inputs import image_files

    return image_files(inputs)


def _drawings(sources: Sequence[str], out: str) -> dict[str, Path]:
    """Return where the drawing of each image goes.

    Raises:
        UserError: If two images would be drawn to one file, or the folder is a file.
    """
    from tutelage.deploy.inputs import SUFFIX
    from tutelage.io import expanded

    if out != BESIDE and Path(out).is_file():
        raise UserError(
            f"--draw takes a folder, and {out} is a file; write --draw after the inputs"
        )
    drawings: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for source in sources:
        image = expanded(source)
        folder = image.parent if out == BESIDE else expanded(out)
        path = folder / f"{image.stem}{SUFFIX}.png"
        if taken.setdefault(path, source) != source:
            raise UserError(
                f"{taken[path]} and {source} would both be drawn to {path}; give them in two calls "
                "with --draw into different folders"
            )
        drawings[source] = path
    return drawings


def _draw(image: Any, overlay: Any, names: Sequence[str], path: Path) -> None:
    from tutelage.deploy.inputs import drawing_mark
    from tutelage.drawing.overlay import draw_overlay
    from tutelage.io import atomic

    picture = draw_overlay(image, overlay, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=drawing_mark())


def _print(source: str, record: Mapping[str, Any], drawn: Path | None, as_json: bool) -> None:
    if as_json:
        drawing = {} if drawn is None else {"drawing": str(drawn)}
        print(json.dumps({"input": source, **record, **drawing}))
        return
    print(source if drawn is None else f"{source} → {drawn}")
    for name, value in record.items():
        if isinstance(value, list):  # answers in their order
            rows = [(str(place), entry) for place, entry in enumerate(value, start=1)]
            rows = rows or [(name, "nothing found")]
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
