"""A recipe may name the recipe of its teacher: trained once, on the same data, and reused by every run."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.runs import train_run
from tutelage.engine import Recipe
from tutelage.engine.rehearse import rehearse
from tutelage.engine.run_folder import RunFolder
from tutelage.errors import UserError


@dataclass(frozen=True)
class TeacherRun:
    """The run of a teacher, done or still to do."""

    source: Parsed
    out: Path

    @property
    def ready(self) -> bool:
        """Whether it is finished."""
        return (self.out / "metrics.json").exists()

    def check_processes(self) -> None:
        """Refuse several processes: their group ends with the teacher's run, and a second one is not safe to make.

        Raises:
            UserError: the message has the command that trains the teacher on all of them.
        """
        if not self.ready and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "several processes cannot train a teacher and then its student; train the teacher first, with the same "
                f"launcher and --data keys: tutelage train {self.source.path} --out {self.out}"
            )

    def train(self) -> bool:
        """Train it, unless it is there; return False when it was interrupted."""
        if self.ready:
            return True
        print(f"training the teacher once: {self.source.path} → {self.out}", file=sys.stderr, flush=True)
        return train_run(self.source, self.out, resume=True) is not None


def resolve_teacher(parsed: Parsed, teachers: str | Path) -> TeacherRun | None:
    """Replace `teacher.recipe` by the network and the weights that it leads to, in place.

    Args:
        parsed: the recipe; its teacher section is filled in.
        teachers: folder of the teachers' runs, one for each recipe and data set.

    Returns:
        The run that the weights come from; None when the recipe names none or gives weights itself.
    """
    spec = parsed.config.teacher
    if spec is None or spec.recipe is None:
        return None
    if spec.network is not None:
        raise UserError(f"{parsed.path}: teacher has a network and a recipe; give one, the recipe has a network itself")
    source = parse_recipe(parsed.path.parent / spec.recipe)
    if source.config.teacher is not None:
        raise UserError(f"{source.path} has a teacher of its own; train it by itself and give teacher.weights")
    source.config.data = parsed.config.data
    text = source.text()
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    out = Path(teachers) / f"{source.path.resolve().parent.name}-{source.path.stem}-{digest}"
    student = source.config.student
    spec.network, spec.recipe = student.network, None
    spec.mean, spec.std = student.mean, student.std
    if spec.weights is not None:
        return None
    spec.weights = str(out)
    teacher = TeacherRun(source, out)
    if teacher.ready:
        RunFolder(out).check(text, resume=True)
    return teacher


def build_now(parsed: Parsed, teacher: TeacherRun | None) -> Recipe:
    """Build a recipe whose teacher may not be trained yet; it is then an untrained network."""
    if teacher is None or teacher.ready:
        return parsed.build()
    spec = parsed.config.teacher
    weights, spec.weights = spec.weights, None
    try:
        return parsed.build()
    finally:
        spec.weights = weights


def rehearse_run(parsed: Parsed, teacher: TeacherRun | None) -> None:
    """Find the mistakes of a recipe and of its teacher's in a second or two, before anything is trained.

    Raises:
        UserError: data, networks, taps or shapes do not fit; the message names the recipe.
    """
    whole = {parsed.path: build_now(parsed, teacher)}
    if teacher is not None and not teacher.ready:
        whole[teacher.source.path] = teacher.source.build()
    for path, recipe in whole.items():
        try:
            rehearse(recipe)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
