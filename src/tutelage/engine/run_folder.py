"""The folder of a run.

recipe.yaml          the recipe as run, every default filled in
environment.json     versions, commit, hardware
loss_scale.json      value and gradient norm of every term before the first step
log.jsonl            one line an epoch: terms, validation metrics, learning rate, seconds
layer_maps.jsonl     one line every `train.cka_every` epochs: CKA of student and teacher layers
metrics.json         the outcome; there when the run is finished
pictures/            a few test samples with the truth and the predictions; see `engine.previews`
student.safetensors  the student alone, and student.json beside it: its inputs and classes
student/, ids.json   what the task exports for use elsewhere; see `Task.export`
checkpoints/         what `--resume` needs; removed when the run is finished
run.lock             host and process of the run that is under way; see `engine.lock`
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tutelage.engine.lock import LOCK, FolderInUseError, living_owner, locked
from tutelage.errors import UserError
from tutelage.io import is_temporary, read_json, remove_leftovers, write_json, write_text
from tutelage.provenance import provenance

LOG = "log.jsonl"
LAYER_MAPS = "layer_maps.jsonl"
TRACKERS = "tutelage"  # the folder of Accelerate's trackers
WRITTEN_BEFORE_RECIPE = {LOCK, "environment.json"}
WRITTEN_BEFORE_TRAINING = {
    *WRITTEN_BEFORE_RECIPE,
    "recipe.yaml",
    "loss_scale.json",
    LOG,
    LAYER_MAPS,
    TRACKERS,
    "wandb",  # a tracker's own folder
}


class RunFolder:
    """One run's folder; only the main process writes.

    Args:
        path: the folder.
        writes: False on all ranks but the first.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._made: list[Path] = []
        self._is_discarded = False

    @property
    def recipe(self) -> Path:
        """The recipe as run."""
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "metrics.json").exists()

    def metrics(self) -> dict[str, Any]:
        """Return the outcome of a finished run."""
        return read_json(self.path / "metrics.json", "remove it and add --resume")

    def check(self, recipe: str, resume: bool) -> None:
        """Check that the folder can be used for this recipe; nothing is written.

        Args:
            recipe: the recipe as text.
            resume: whether an unfinished run may go on.

        Raises:
            UserError: If the folder holds something else, another recipe, or a run that was not
                asked to go on; if it cannot be written.
        """
        if self.recipe.exists():
            if resume:
                check_same_recipe(self.recipe, recipe)
                return
            if self.finished:
                raise UserError(f"{self.path} holds a finished run; choose another --out")
            owner = living_owner(self.path)
            if owner is not None:
                raise FolderInUseError(self.path, owner)
            raise UserError(
                f"{self.path} holds an unfinished run; add --resume to go on, "
                "or choose another --out"
            )
        if self.path.exists() and not self._is_empty():
            raise UserError(f"{self.path} exists and is no run of ours; choose another --out")
        folders = (self.path, *self.path.absolute().parents)
        existing = next(folder for folder in folders if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(
                f"{self.path} cannot be made: {existing} is no folder to write to; "
                "choose another --out"
            )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder and have it for this run alone until the end of the block.

        Raises:
            FolderInUseError: If another process has it.
        """
        if not self.writes:
            yield
            return
        folders = (self.path, *self.path.absolute().parents)
        self._made = [folder for folder in folders if not folder.exists()]
        try:
            with ExitStack() as stack:
                self._lock(stack)
                remove_leftovers(self.path)
                remove_leftovers(self.checkpoints)
                yield
        finally:
            self._remove_discarded()

    def _lock(self, stack: ExitStack) -> None:
        """Make and lock the folder, again if another process has discarded it in between."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                stack.enter_context(locked(self.path))
                return

    def create(self, recipe: str) -> None:
        """Write the first files, unless the run is resumed and has them."""
        if self.writes and not self.recipe.exists():
            write_json(self.path / "environment.json", provenance())
            write_text(self.recipe, recipe)

    def discard(self) -> None:
        """Remove the folder, and its new parents, if nothing was trained in it.

        A folder that holds anything but the run's own first files stays. Folders are removed when
        the lock is released: until then no other process begins in this one.
        """
        if not self.writes or not self.path.is_dir() or self.records():
            return
        self._is_discarded = True
        paths = list(self.path.iterdir())
        if {path.name for path in paths} <= WRITTEN_BEFORE_TRAINING:
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != LOCK:
                    path.unlink(missing_ok=True)

    def _remove_discarded(self) -> None:
        if self._is_discarded:
            for folder in dict.fromkeys((self.path, *self._made)):
                with suppress(OSError):  # it holds something else
                    folder.rmdir()

    def clean(self) -> None:
        """Remove what a finished run would have removed if it had not been killed at that."""
        names = [path for path in self.path.iterdir() if is_temporary(path)]
        if not (names or self.checkpoints.exists() or (self.path / LOCK).exists()):
            return
        # Not while its process is still at it, nor where the folder is another user's.
        with suppress(FolderInUseError, OSError), locked(self.path):
            remove_leftovers(self.path)
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _is_empty(self) -> bool:
        """Return whether nothing is in the folder but what a run that was killed at once left."""
        if not self.path.is_dir():
            return False
        return all(
            path.name in WRITTEN_BEFORE_RECIPE or is_temporary(path) for path in self.path.iterdir()
        )

    def log(self, record: dict[str, Any], name: str = LOG) -> None:
        """Append one line to log.jsonl, or to another of the run's records."""
        if self.writes:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def records(self, name: str = LOG) -> list[dict[str, Any]]:
        """Return the lines that are whole; a kill or a full disk can cut the last one."""
        return _whole_records(self.path / name)[0]

    def rewind(self, step: int) -> None:
        """Drop the lines written after `step`, from which the run goes on; all if it is -1."""
        for name in (LOG, LAYER_MAPS):
            path = self.path / name
            if not self.writes or not path.exists():
                continue
            records, damaged = _whole_records(path)
            if damaged:
                print(
                    f"warning: {damaged} damaged line(s) of {path} are dropped; "
                    "the log lacks their epochs",
                    file=sys.stderr,
                )
            kept = [record for record in records if record["step"] <= step]
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the outcome and remove the checkpoints."""
        if self.writes:
            write_json(self.path / "metrics.json", metrics)
            self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove what a run that has ended does not need any more."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def _whole_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records of a log, and how many lines before the last are none."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    records: list[dict[str, Any]] = []
    damaged = 0
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            is_whole = isinstance(record, dict) and isinstance(record["step"], int)
        except (ValueError, KeyError, RecursionError):
            is_whole = False
        if is_whole:
            records.append(record)
        elif number < len(lines) - 1:  # what follows the last line break is cut, or nothing
            damaged += 1
    return records, damaged


def check_same_recipe(path: Path, recipe: str) -> None:
    """Raise unless a recipe is the one in a file.

    Args:
        path: of the file.
        recipe: as text.

    Raises:
        UserError: With the first line that differs.
    """
    before = path.read_text(encoding="utf-8", errors="replace").splitlines()
    now = recipe.splitlines()
    for old, new in zip(before, now, strict=False):
        if old != new:
            raise UserError(
                f"{path} was run with '{old.strip()}', now it is '{new.strip()}'; "
                "a run resumes its own recipe only: choose another --out"
            )
    if len(before) != len(now):
        raise UserError(
            f"{path} has {len(before)} lines, now there are {len(now)}; "
            "a run resumes its own recipe only: choose another --out"
        )
