"""A dry run: what would be recorded, built and trained, and how long it would take."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median

from accelerate import Accelerator
from torch import nn

from tutelage.analysis import suggest_pairs
from tutelage.core import Batch, Step
from tutelage.engine.activations import activation_bytes
from tutelage.engine.checks.terms import TermScale, check_terms
from tutelage.engine.evaluate import RecordedTeacher
from tutelage.engine.setup import Setup, TrainingSetup, make_accelerator
from tutelage.engine.teacher_cache import cache_of, check_views_of, without_cache
from tutelage.engine.teacher_run import resolve_teachers
from tutelage.errors import UserError
from tutelage.recipes.config import Recipe, TeacherConfig

TIMED_STEPS = 5
PAIRING_BATCHES = 4
ENOUGH_SECONDS = 10.0  # for either of them, where a step is slow


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        num_samples: number of samples of every part.
        parameters: of student, teacher and what the method adds.
        features: (role, address, shape) of every recorded layer on the example batch.
        connectors: (name, shape) of every trainable part that the method builds.
        terms: value and gradient norm of every term.
        pairs: (student layer, teacher layer, CKA) of the layers that agree best now; empty without
            a teacher.
        steps: optimizer steps of the run.
        step_seconds: median time of one step on this machine, with the loading of its batch.
        cache_seconds: time in which a teacher cache is filled before the first step; 0 without one.
        gradient_cap: how many times as hard as the labels the terms may pull across them; None
            without a limit.
        pieces: in how many pieces a batch runs.
        activation_bytes: what the student keeps of one of them for its backward pass.
    """

    num_samples: dict[str, int]
    parameters: dict[str, int]
    features: list[tuple[str, str, tuple[int, ...]]]
    connectors: list[tuple[str, tuple[int, ...]]]
    terms: list[TermScale]
    pairs: list[tuple[str, str, float]]
    steps: int
    step_seconds: float
    cache_seconds: float
    gradient_cap: float | None
    pieces: int
    activation_bytes: int


def plan(recipe: Recipe) -> Plan:
    """Set a recipe up, run a few steps on one batch, and report; nothing is written.

    Raises:
        UserError: If a part does not fit.
    """
    asked = recipe
    recipe = _with_untrained_teachers(recipe)
    accelerator = make_accelerator(recipe.train)
    ready = TrainingSetup.of(Setup.of(recipe), accelerator)
    check_views_of(asked, ready.setup.parts["train"])
    distiller = ready.distiller
    terms = check_terms(distiller, ready.example)
    example = distiller.step(ready.example)
    features = [
        (role, name, tuple(value.shape))
        for role, output in (("student", example.student), ("teacher", example.teacher))
        for name, value in output.features.items()
    ]
    pieces = ready.example.split(recipe.train.accumulate)
    activations = activation_bytes(distiller.student, recipe.task.inputs(pieces[0]))
    cache_seconds = 0.0
    cache = cache_of(asked)
    if cache is not None and distiller.method.uses_teacher:
        cache_seconds = _teacher_seconds(ready, example) * len(ready.sampler)
        cache_seconds *= cache.cache_views or 1
        # A step then finds its teacher's outputs stored, as those of this batch are.
        distiller.teacher = RecordedTeacher(distiller.teacher)
    networks: dict[str, nn.Module] = {"student": distiller.student, "method": distiller.method}
    networks.update(ready.setup.teacher.models())
    return Plan(
        num_samples={name: len(samples) for name, samples in ready.setup.parts.items()},
        parameters={name: num_parameters(network) for name, network in networks.items()},
        features=features,
        connectors=[(name, tuple(p.shape)) for name, p in distiller.method.named_parameters()],
        terms=terms,
        pairs=_pairs(ready),
        steps=len(ready.sampler) * recipe.train.epochs,
        step_seconds=_with_loading(ready, _step_seconds(ready, accelerator)),
        cache_seconds=cache_seconds,
        gradient_cap=None if ready.cap is None else ready.cap.limit,
        pieces=len(pieces),
        activation_bytes=activations,
    )


def check_recipe(recipe: Recipe) -> None:
    """Build everything once and discard it, so that mistakes show before a teacher is trained.

    The recipe stays as it is, and its teachers may be untrained.

    Raises:
        UserError: If the data, a layer or a shape does not fit.
    """
    trial = replace(
        _with_teachers(recipe, _untrained),
        student=copy.deepcopy(recipe.student),
        method=copy.deepcopy(recipe.method),
    )
    ready = TrainingSetup.of(Setup.of(trial), make_accelerator(recipe.train))
    check_views_of(recipe, ready.setup.parts["train"])


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def _with_untrained_teachers(recipe: Recipe) -> Recipe:
    """Return the recipe with the teachers that it names by their recipes, trained or not."""
    recipe, runs = resolve_teachers(recipe)
    missing = [str(run.out) for run in runs if not run.ready]

    def available(config: TeacherConfig) -> TeacherConfig:
        config = without_cache(config)  # filling one takes a pass over all data, and writes files
        return replace(config, weights=None) if config.weights in missing else config

    return _with_teachers(recipe, available)


def _with_teachers(recipe: Recipe, change: Callable[[TeacherConfig], TeacherConfig]) -> Recipe:
    """Return the recipe with the section of every teacher changed."""
    teacher = None if recipe.teacher is None else change(recipe.teacher)
    teachers: Mapping[str, TeacherConfig] | None = None
    if recipe.teachers is not None:
        teachers = {name: change(config) for name, config in recipe.teachers.items()}
    return replace(recipe, teacher=teacher, teachers=teachers)


def _untrained(config: TeacherConfig) -> TeacherConfig:
    """Return a copy without weights, and without a cache, which would run it over all samples."""
    return replace(without_cache(copy.deepcopy(config)), weights=None)


def _pairs(ready: TrainingSetup) -> list[tuple[str, str, float]]:
    models = list(ready.setup.teacher.models().values())
    if len(models) != 1:
        return []
    try:
        return suggest_pairs(
            models[0],
            ready.distiller.student,
            _some(ready.training_batches()),
            inputs=ready.setup.recipe.task.inputs,
        )
    except UserError:  # nothing to pair, or batches of fewer than 4 items: the plan goes without
        return []


def _some(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Give the first few batches, fewer where networks are slow."""
    start = time.perf_counter()
    for batch in islice(batches, PAIRING_BATCHES):
        yield batch
        if time.perf_counter() - start > ENOUGH_SECONDS:
            return


def _teacher_seconds(ready: TrainingSetup, example: Step) -> float:
    batch = ready.example
    inputs = ready.setup.recipe.task.inputs(batch)
    start = time.perf_counter()
    ready.distiller.teacher(batch, inputs, example.student)
    batch.ids.sum().item()  # waits for the device, which works in order
    return time.perf_counter() - start


def _step_seconds(ready: TrainingSetup, accelerator: Accelerator) -> float:
    model, optimizer = accelerator.prepare(ready.distiller, ready.optimizer)
    model.train()
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        loss = sum(model(ready.example, 1.0).values())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > ENOUGH_SECONDS:
            break
    return median(seconds)


def _with_loading(ready: TrainingSetup, step_seconds: float) -> float:
    """Return the time of a step with that of loading a batch, which processes do meanwhile."""
    batches = iter(ready.training_batches())
    next(batches)  # starts the processes
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        if next(batches, None) is None:
            break
        seconds.append(time.perf_counter() - start)
    loading = median(seconds) if seconds else 0.0
    in_processes = ready.training.num_workers > 0
    return max(step_seconds, loading) if in_processes else step_seconds + loading
