"""A run's folder explains itself: the recipe as run, versions and commit, log, figures, the student's weights alone.

recipe.yaml          the recipe as run, every default filled in
environment.json     versions, commit, hardware
loss_scale.json      value and gradient norm of every term before the first step
log.jsonl            one line an epoch: terms, validation figures, learning rate, seconds
layer_maps.jsonl     one line every `train.map_every` epochs: how the student's layers agree with the teacher's
metrics.json         the outcome; there when the run is finished
pictures/            a few test images with what is true and what teacher and student find; see `engine.pictures`
student.safetensors  the student alone, and student.json beside it: its normalisation and classes
checkpoints/         what `--resume` needs; removed when the run is finished
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tutelage.engine.files import read_json, write_json, write_text
from tutelage.engine.provenance import provenance
from tutelage.errors import UserError

LOG, MAPS = "log.jsonl", "layer_maps.jsonl"
FIRST = {"recipe.yaml", "environment.json", "loss_scale.json", LOG, MAPS, "tutelage"}  # the last one: a tracker's


class RunFolder:
    """One run's folder; only the main process writes.

    Args:
        path: the folder.
        writes: False on all ranks but the first.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "metrics.json").exists()

    def metrics(self) -> dict[str, Any]:
        """Return the outcome of a finished run."""
        return read_json(self.path / "metrics.json", "remove it and add --resume")

    def check(self, recipe: str, resume: bool) -> None:
        """Make sure, before any work, that the folder can be claimed for this recipe.

        Raises:
            UserError: it holds something else, another recipe, or a run that was not asked to go on.
        """
        mine = self.path / "recipe.yaml"
        if mine.exists() and resume:
            _same_recipe(mine, recipe)
            return
        if mine.exists():
            state, advice = (
                ("a finished run", "choose another --out")
                if self.finished
                else ("an unfinished run", "add --resume to go on, or choose another --out")
            )
            raise UserError(f"{self.path} holds {state}; {advice}")
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path} exists and is no run of ours; choose another --out")
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UserError(f"{self.path} cannot be made: {there} is no folder to write to; choose another --out")

    def begin(self, recipe: str) -> None:
        """Make the folder, unless the run is resumed and has one."""
        if self.writes and not (self.path / "recipe.yaml").exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "environment.json", provenance())
            write_text(self.path / "recipe.yaml", recipe)

    def forget(self) -> None:
        """Remove the folder if nothing was trained in it and nothing but the run's own first files lies there."""
        if not self.path.is_dir() or self.records():
            return
        if {path.name for path in self.path.iterdir()} <= FIRST:
            shutil.rmtree(self.path, ignore_errors=True)

    def log(self, record: dict[str, Any], name: str = LOG) -> None:
        """Append one line to log.jsonl, or to another of the run's records."""
        if self.writes:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def records(self, name: str = LOG) -> list[dict[str, Any]]:
        """Return the lines that are whole."""
        path = self.path / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def rewind(self, step: int) -> None:
        """Drop lines written after `step`: the run goes on from there."""
        for name in (LOG, MAPS):
            if self.writes and (self.path / name).exists():
                kept = [json.dumps(record) + "\n" for record in self.records(name) if record["step"] <= step]
                write_text(self.path / name, "".join(kept))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the outcome; the checkpoints are not needed any more."""
        if self.writes:
            write_json(self.path / "metrics.json", metrics)
            shutil.rmtree(self.checkpoints, ignore_errors=True)


def _same_recipe(path: Path, recipe: str) -> None:
    before, now = path.read_text().splitlines(), recipe.splitlines()
    for old, new in zip(before, now, strict=False):
        if old != new:
            raise UserError(
                f"{path} was run with '{old.strip()}', now it is '{new.strip()}'; a run resumes its own recipe only: "
                "choose another --out"
            )
    if len(before) != len(now):
        raise UserError(
            f"{path} has {len(before)} lines, now there are {len(now)}; a run resumes its own recipe only: "
            "choose another --out"
        )
