"""From a recipe to everything the loop needs: seed → grow → data → probe one batch → ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from tutelage.cache import Remembered
from tutelage.core import Absent, Distiller, Network, Teacher
from tutelage.data import ImageSet, Splits
from tutelage.engine.evaluate import mover
from tutelage.engine.loader import EpochSampler, evaluation_loader, training_loader
from tutelage.engine.networks import ready_network
from tutelage.engine.probe import check_parts, check_taps, explained, reason
from tutelage.engine.recipe import Recipe
from tutelage.errors import UserError


@dataclass
class Assembly:
    """A recipe put together, before the first step.

    Attributes:
        distiller: student and method, on the device, with the method's trainable parts built.
        teacher: the live teacher, if the recipe has one.
        sampler, training: batches of training data.
        validation, test: every item once.
        example: one real training batch on the device.
        splits: the data sets.
        move: brings a batch to the device.
    """

    distiller: Distiller
    teacher: Network | None
    sampler: EpochSampler
    training: DataLoader[Any]
    validation: DataLoader[Any]
    test: DataLoader[Any]
    example: Any
    splits: Splits
    move: Callable[[Any], Any]


def assemble(recipe: Recipe, accelerator: Accelerator) -> Assembly:
    """Put a recipe together.

    Raises:
        UserError: the data, the weights, a tap or a shape does not fit; nothing was trained by then.
    """
    train = recipe.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    set_seed(recipe.seed)
    splits = recipe.data.splits(recipe.labels, recipe.seed)
    teacher = _teacher(recipe)
    student = recipe.method.grow(ready_network(recipe.student, recipe.data), teacher)
    data = recipe.method.data(splits.train, teacher)
    rank, world = accelerator.process_index, accelerator.num_processes
    sampler = EpochSampler.over(data, train.batch_size, recipe.seed, rank, world)
    training = training_loader(data, sampler, train.workers)
    move = mover(accelerator.device)
    heard = _remembered(recipe, teacher, data, move) if recipe.teacher and recipe.teacher.remember else teacher
    example = move(_first(training))
    check_taps(recipe.method, student, teacher)
    with explained(student.to(accelerator.device), teacher, recipe.task, example):
        distiller = Distiller(student, heard, recipe.method, recipe.task)
        distiller.setup(example)
        check_parts(distiller, train, example)
    if train.compile:
        distiller.student.compile()
        if isinstance(teacher, Network):
            teacher.network.compile()
    size = recipe.task.evaluation_batch
    set_seed(recipe.seed + rank)  # dropout differs between ranks; the weights above do not
    return Assembly(
        distiller=distiller,
        teacher=teacher if isinstance(teacher, Network) else None,
        sampler=sampler,
        training=training,
        validation=evaluation_loader(splits.validation, size, train.workers, rank, world),
        test=evaluation_loader(splits.test, size, train.workers, rank, world),
        example=example,
        splits=splits,
        move=move,
    )


def _teacher(recipe: Recipe) -> Teacher:
    return Absent() if recipe.teacher is None else Network(ready_network(recipe.teacher, recipe.data))


def _remembered(recipe: Recipe, teacher: Teacher, data: ImageSet, move: Callable[[Any], Any]) -> Teacher:
    if not isinstance(teacher, Network):
        return teacher
    if data.augment is not None:
        raise UserError("teacher.remember needs images that stay the same; set data.augment to false, or leave it out")
    once = evaluation_loader(data, recipe.task.evaluation_batch, recipe.train.workers)
    return Remembered(teacher, recipe.task, lambda: map(move, once), len(data))


def _first(loader: Iterable[Any]) -> Any:
    try:
        for batch in loader:
            return batch
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the training images cannot be loaded: {reason(error)}; check the data and data.augment"
        ) from error
    raise UserError("the training data is empty; check data.root and labels")
