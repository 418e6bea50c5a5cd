"""A teacher's pass over the data on the workers of a Ray cluster, for a cache in files.

Each worker builds the recipe, with its teacher and data, and answers for some batches at a time.
The answers come back in order, and the process that writes the files does so as if the teacher ran
in it, so that the files are the same. A worker that is gone is started again, where there is room,
and repeats what it was at; what is written is never computed again.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tutelage.cache import StoredTeacher
from tutelage.cache.fill import Answer
from tutelage.cluster.ray_session import living_nodes, most_of
from tutelage.core import Teacher
from tutelage.errors import UserError, reason

RETRIES = 5  # of a worker that is gone, and of each task that it had
BATCHES_PER_TASK = 4
TASKS_PER_WORKER = 2  # one that it works at, and one that waits


@dataclass(frozen=True)
class RecipeText:
    """A recipe as another machine can build it.

    Attributes:
        content: as YAML.
        path: its file, for messages and for modules of one's own beside it.
        working: the folder that relative paths start from.
    """

    content: str
    path: Path
    working: Path


class Labeler:
    """A teacher and its data in one worker.

    Args:
        recipe: with `teacher.cache: disk`.
    """

    def __init__(self, recipe: RecipeText) -> None:
        # Built with the first task, whose errors come back as they are.
        self._recipe = recipe
        self._setup: Any = None
        self._device: Any = None
        self._stored: dict[str, StoredTeacher] = {}
        self._teachers: dict[tuple[str, ...], Teacher] = {}

    def label(
        self,
        part: str,
        digest: str,
        layers: Sequence[str],
        names: Sequence[str],
        keys: Sequence[tuple[int, int]],
    ) -> tuple[str, list[Answer]]:
        """Return which process this is, and the teacher's answers.

        Args:
            part: of the data.
            digest: of the cache that they are for.
            layers: that the teacher records.
            names: of the outputs to give.
            keys: (view, position) of the samples.

        Raises:
            UserError: If this machine has another teacher or other data, or the teacher gives NaN.
        """
        if part not in self._stored:
            self._stored[part] = self._store(part)
        stored = self._stored[part]
        host = socket.gethostname()
        if stored.digest != digest:
            raise UserError(
                f"{host} has another teacher, other data or another version of tutelage than this "
                "machine; give weights and data by paths that all machines of the cluster share"
            )
        if tuple(layers) not in self._teachers:
            self._teachers[tuple(layers)] = stored.teacher.with_taps(layers)
        teacher = self._teachers[tuple(layers)]
        return f"process {os.getpid()} on {host}", list(stored.answers(teacher, names, keys))

    def _store(self, part: str) -> StoredTeacher:
        from tutelage.engine.teacher_cache import stored_teacher

        if self._setup is None:
            self._build()
        stored = stored_teacher(self._setup, part, self._device)
        assert isinstance(stored, StoredTeacher)
        return stored

    def _build(self) -> None:
        from tutelage.engine.setup import Setup, make_accelerator
        from tutelage.recipes.read import parse_content

        folder = self._recipe.working
        if not folder.is_dir():
            raise UserError(
                f"{socket.gethostname()} has no folder {folder}, which relative paths of the "
                "recipe start from; start in a folder that all machines of the cluster share"
            )
        os.chdir(folder)
        if "" not in sys.path:
            sys.path.append("")  # class paths may name files of the working folder
        recipe = parse_content(yaml.safe_load(self._recipe.content), self._recipe.path).build()
        # Loading processes would be started anew for every task.
        recipe = replace(recipe, train=replace(recipe.train, num_workers=0))
        self._setup = Setup.of(recipe)
        self._device = make_accelerator(recipe.train).device


class Labelers:
    """Workers of a Ray cluster that run a teacher, each on a GPU where the cluster has some.

    Args:
        ray: the package, connected.
        recipe: what each of them builds.
        batch_size: of the batches that the teacher sees.
        workers: how many; None is one for each GPU, or where there is none, for each CPU.

    Raises:
        UserError: If there is no room for as many.
    """

    def __init__(
        self, ray: ModuleType, recipe: RecipeText, batch_size: int, workers: int | None
    ) -> None:
        nodes = living_nodes(ray)
        resource = "GPU" if most_of(nodes, "GPU") else "CPU"
        room = int(sum(node["Resources"].get(resource, 0) for node in nodes))
        if workers is not None and workers > room:
            raise UserError(
                f"--workers {workers} is more than the cluster has room for: each needs a "
                f"{resource}, and it has {room}"
            )
        self._ray = ray
        self._task_size = BATCHES_PER_TASK * batch_size
        labeler = ray.remote(
            num_cpus=1,
            num_gpus=1 if resource == "GPU" else 0,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )(Labeler)
        count = max(1, room if workers is None else workers)
        self._workers = [labeler.remote(recipe) for _ in range(count)]
        self._processes: dict[int, str] = {}

    def __call__(
        self,
        stored: StoredTeacher,
        layers: Sequence[str],
        names: Sequence[str],
        keys: Sequence[tuple[int, int]],
    ) -> Iterator[Answer]:
        """Give a teacher's answers, in the order of the keys.

        Args:
            stored: the cache that they are for.
            layers: that the teacher records.
            names: of the outputs to give.
            keys: (view, position) of the samples.

        Raises:
            UserError: As `Labeler.label`, or if workers go again and again.
        """
        starts = iter(range(0, len(keys), self._task_size))
        turns = cycle(range(len(self._workers)))
        waiting: deque[tuple[int, Any]] = deque()
        part = str(stored.facts["part"])
        while True:
            while len(waiting) < TASKS_PER_WORKER * len(self._workers):
                start = next(starts, None)
                if start is None:
                    break
                number = next(turns)
                some = keys[start : start + self._task_size]
                label = self._workers[number].label
                task = label.remote(part, stored.digest, list(layers), list(names), some)
                waiting.append((number, task))
            if not waiting:
                return
            number, task = waiting.popleft()
            yield from self._result(number, task)

    def _result(self, number: int, task: Any) -> list[Answer]:
        errors = self._ray.exceptions
        try:
            process, answers = self._ray.get(task)
        except errors.RayTaskError as error:
            cause = error.cause
            text = str(cause) if isinstance(cause, UserError) else reason(cause)
            raise UserError(text) from error
        except errors.RayError as error:
            raise UserError(
                f"a worker that runs the teacher ended again and again, or cannot run tutelage: "
                f"{reason(error)}; what is stored is kept: give the same command to go on"
            ) from error
        before = self._processes.get(number, process)
        if before != process:
            print(f"{before} is gone; its work goes on in {process}", file=sys.stderr, flush=True)
        self._processes[number] = process
        found: list[Answer] = answers
        return found
