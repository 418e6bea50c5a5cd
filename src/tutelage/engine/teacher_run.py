"""A recipe may name the recipe of its teacher, which is trained once and reused by every run.

The teacher is trained on the student's data, into a folder whose name holds a digest of the
resolved teacher recipe, so that another recipe or other data gives another teacher.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.engine.lock import FolderInUseError
from tutelage.engine.ranks import launched_world
from tutelage.engine.run_folder import RunFolder
from tutelage.errors import UserError
from tutelage.recipes.config import Recipe, TeacherConfig

TEACHER_DIR = Path("runs/teachers")
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class TeacherRun:
    """The run of a teacher, finished or not.

    Attributes:
        source: where its recipe is from, for messages.
        text: the resolved recipe as text; the key of the folder.
        out: the folder.
        build: builds the recipe.
    """

    source: str
    text: str
    out: Path
    build: Callable[[], Recipe]

    @classmethod
    def of(
        cls, source: Path, text: str, teacher_dir: Path, build: Callable[[], Recipe]
    ) -> TeacherRun:
        """Return the run of a teacher recipe.

        Raises:
            UserError: If its folder holds a run of another recipe.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        out = teacher_dir / f"{source.resolve().parent.name}-{source.stem}-{digest}"
        run = cls(str(source), text, out, build)
        if run.ready:
            RunFolder(out).check(text, resume=True)
        return run

    @property
    def ready(self) -> bool:
        """Whether the teacher is trained."""
        return RunFolder(self.out).finished

    def check_processes(self) -> None:
        """Refuse to train on several processes, whose group would end with the teacher's run.

        Raises:
            UserError: The message has the command that trains the teacher on all of them.
        """
        if not self.ready and launched_world() > 1:
            raise UserError(
                "several processes cannot train a teacher and then its student; train the teacher "
                "first, with the same launcher and --data keys: "
                f"tutelage train {self.source} --out {self.out}"
            )

    def train(self) -> bool:
        """Train the teacher if it is not trained; return False if that was interrupted.

        If another process trains it, wait for that; if that ends unfinished, go on with its run.
        """
        is_waiting = False
        while not self.ready:
            try:
                return self._train_alone()
            except FolderInUseError as error:
                if error.folder != self.out:
                    raise
                if not is_waiting:
                    who = error.owner_name
                    self._say(f"waiting for the teacher that {who} trains: {self.out}")
                is_waiting = True
                time.sleep(WAIT_SECONDS)
        RunFolder(self.out).clean()
        return True

    def _train_alone(self) -> bool:
        from tutelage.engine.fit import fit_claimed

        folder = RunFolder(self.out)
        folder.check(self.text, resume=True)
        with folder.claimed():
            if not self.ready:
                self._say(f"training the teacher once: {self.source} → {self.out}")
            return fit_claimed(self.build(), folder, self.text, resume=True) is not None

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def resolve_teachers(
    recipe: Recipe, teacher_dir: Path = TEACHER_DIR
) -> tuple[Recipe, Sequence[TeacherRun]]:
    """Replace `recipe` keys of teachers by the networks and weights that they lead to.

    The command line does the same on the parsed text, so that the run folder's recipe has the
    weights in it; here it is for recipes that are built in Python.

    Args:
        recipe: stays as it is.
        teacher_dir: folder of the teachers' runs.

    Returns:
        The recipe without `recipe` keys, and the runs that its weights come from.

    Raises:
        UserError: If a teacher's recipe cannot be read, or has a teacher of its own.
    """
    runs: list[TeacherRun] = []
    teacher = recipe.teacher
    if teacher is not None:
        teacher = _resolved(teacher, recipe, teacher_dir, runs)
    teachers = recipe.teachers
    if teachers is not None:
        teachers = {
            name: _resolved(config, recipe, teacher_dir, runs) for name, config in teachers.items()
        }
    return replace(recipe, teacher=teacher, teachers=teachers), runs


def _resolved(
    config: TeacherConfig, recipe: Recipe, teacher_dir: Path, runs: list[TeacherRun]
) -> TeacherConfig:
    if config.recipe is None:
        return config
    if config.model is not None:
        raise UserError("teacher has a model and a recipe; give one, the recipe has a model itself")
    from tutelage.recipes.read import parse_recipe

    parsed = parse_recipe(config.recipe)

    def build() -> Recipe:
        return replace(parsed.build(), data=recipe.data)

    source = parsed.build()
    if source.teacher is not None or source.teachers is not None:
        raise UserError(
            f"{parsed.name} has a teacher of its own; train it by itself and give teacher.weights"
        )
    weights = config.weights
    if weights is None:
        text = parsed.text()
        # On the data of its own recipe the teacher is the one that the command line trains.
        if repr(source.data) != repr(recipe.data):
            text += f"# on {recipe.data!r}\n"
        run = TeacherRun.of(Path(parsed.name), text, teacher_dir, build)
        runs.append(run)
        weights = str(run.out)
    return replace(
        config,
        model=source.student.model,
        weights=weights,
        recipe=None,
        mean=source.student.mean,
        std=source.student.std,
    )
