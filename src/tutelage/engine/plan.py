"""A dry run: what would be tapped, built and trained, and how long it would take. Nothing is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from statistics import median

from accelerate import Accelerator

from tutelage.engine.assemble import Assembly, assemble
from tutelage.engine.compare import suggest_pairs
from tutelage.engine.guard import TermScale, check_terms
from tutelage.engine.recipe import Recipe
from tutelage.errors import UserError

TIMED_STEPS, PAIRING_BATCHES = 5, 4


@dataclass(frozen=True)
class Plan:
    """What a recipe will do.

    Attributes:
        images: number of training, validation and test images.
        parameters: of student, teacher and what the method adds.
        taps: (whose, address, shape) of every recorded output of the example batch.
        connectors: (name, shape) of every trainable part that the method builds.
        terms: value and gradient norm of every term.
        pairs: (student layer, teacher layer, CKA): the layers that agree best now; empty without a teacher.
        steps: optimiser steps of the run.
        step_seconds: median time of one step on this machine.
    """

    images: dict[str, int]
    parameters: dict[str, int]
    taps: list[tuple[str, str, tuple[int, ...]]]
    connectors: list[tuple[str, tuple[int, ...]]]
    terms: list[TermScale]
    pairs: list[tuple[str, str, float]]
    steps: int
    step_seconds: float


def plan(recipe: Recipe) -> Plan:
    """Assemble a recipe, run a few steps on one batch, and report."""
    accelerator = Accelerator(mixed_precision=recipe.train.precision)
    parts = assemble(recipe, accelerator)
    distiller, splits = parts.distiller, parts.splits
    terms = check_terms(distiller, parts.example)
    example = distiller.step(parts.example)
    taps = [("student", name, tuple(value.shape)) for name, value in example.student.taps.items()]
    taps += [("teacher", name, tuple(value.shape)) for name, value in example.teacher.taps.items()]
    count = {"student": distiller.student, "method": distiller.method}
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in count.items()}
    if parts.teacher is not None:
        parameters["teacher"] = sum(p.numel() for p in parts.teacher.network.parameters())
    return Plan(
        images={"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        parameters=parameters,
        taps=taps,
        connectors=[(name, tuple(p.shape)) for name, p in distiller.method.named_parameters()],
        terms=terms,
        pairs=_pairs(recipe, parts),
        steps=len(parts.sampler) * recipe.train.epochs,
        step_seconds=_step_seconds(recipe, parts, accelerator),
    )


def _pairs(recipe: Recipe, parts: Assembly) -> list[tuple[str, str, float]]:
    if parts.teacher is None:
        return []
    batches = [parts.move(batch) for batch in islice(parts.training, PAIRING_BATCHES)]
    try:
        return suggest_pairs(parts.teacher.network, parts.distiller.student, batches, inputs=recipe.task.inputs)
    except UserError:  # nothing to pair, or batches of fewer than 4 images: the plan goes without
        return []


def _step_seconds(recipe: Recipe, parts: Assembly, accelerator: Accelerator) -> float:
    optimizer = recipe.train.optimizer([p for p in parts.distiller.parameters() if p.requires_grad])
    model, optimizer = accelerator.prepare(parts.distiller, optimizer)
    model.train()
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        loss = sum(model(parts.example, 1.0).values())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return median(seconds)
