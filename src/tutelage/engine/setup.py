"""From a recipe to everything that a command needs: data, networks, loaders, the distiller.

`Setup.of(recipe)` is what evaluation and comparison need; `TrainingSetup.of(setup, accelerator)`
adds what training needs. Both raise before anything is trained or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn

from tutelage.core import (
    Batch,
    Distiller,
    FrozenTeacher,
    GradientCap,
    NoTeacher,
    Teacher,
    Teachers,
)
from tutelage.data import Data
from tutelage.data.samples import Samples
from tutelage.engine.calibration import check_calibrates
from tutelage.engine.checks.notes import warn
from tutelage.engine.checks.parts import (
    blame_network,
    check_layers,
    check_student,
    checked_optimizer,
)
from tutelage.engine.checks.student_facts import check_classes, normalized, read_student_facts
from tutelage.engine.compiled import compile_networks
from tutelage.engine.evaluate import EvalLoading
from tutelage.engine.loader import BatchLoader, EpochSampler, training_loader
from tutelage.engine.ranks import (
    check_devices,
    check_launch,
    end_group_at_exit,
    needs_cpu,
    refuse_sharding,
)
from tutelage.engine.teacher_cache import cached_teacher, with_repeated_views
from tutelage.engine.weights import load_weights
from tutelage.errors import UserError, reason
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig


@dataclass
class Setup:
    """A recipe with its data loaded and its networks ready.

    Attributes:
        recipe: what was set up.
        parts: the data by name.
        teacher: the teacher, live; `NoTeacher()` if the recipe has none.
        student: the student as the method builds it, with the weights that it starts from.
    """

    recipe: Recipe
    parts: Mapping[str, Samples]
    teacher: Teacher
    student: nn.Module

    @classmethod
    def of(cls, recipe: Recipe) -> Setup:
        """Set up a recipe.

        Raises:
            UserError: If data or weights are missing or do not fit.
        """
        set_up_torch(recipe.train)
        set_seed(recipe.seed)
        parts = recipe.data.splits(recipe.num_labels, recipe.seed)
        teacher = make_teacher(recipe)
        start = ready_network(recipe.student, recipe.data, "student")
        student = recipe.method.build_student(start, teacher)
        return cls(recipe, parts, teacher, student)

    def deployed(self) -> nn.Module:
        """Return the network that the method ships, as it starts."""
        return self.recipe.method.deploy(self.student)

    def eval_loading(self, device: torch.device, rank: int = 0, world: int = 1) -> EvalLoading:
        """Return how evaluation batches are loaded."""
        num_workers = self.recipe.train.num_workers
        return EvalLoading(self.eval_batch_size, num_workers, device, rank, world)

    @property
    def eval_batch_size(self) -> int:
        """Items in a batch of an evaluation."""
        train = self.recipe.train
        return train.batch_size if train.eval_batch_size is None else train.eval_batch_size


def set_up_torch(train: TrainConfig) -> None:
    """Set what holds for the whole process: threads, precision of products, search for kernels."""
    if train.num_threads is not None:
        torch.set_num_threads(train.num_threads)
    torch.set_float32_matmul_precision(train.matmul_precision)
    torch.backends.cudnn.benchmark = train.cudnn_benchmark


def make_teacher(recipe: Recipe) -> Teacher:
    """Return the recipe's teacher or teachers with their weights; `NoTeacher()` if there are none.

    Raises:
        UserError: If a network is missing, or weights do not fit.
    """
    if recipe.teachers:
        return Teachers(
            {
                name: FrozenTeacher(ready_network(config, recipe.data, f"teachers.{name}"))
                for name, config in recipe.teachers.items()
            }
        )
    if recipe.teacher is None:
        return NoTeacher()
    return FrozenTeacher(ready_network(recipe.teacher, recipe.data, "teacher"))


def ready_network(config: StudentConfig | TeacherConfig, data: Data, section: str) -> nn.Module:
    """Return a network with the weights that its section names and its input normalization.

    Args:
        config: the section of the recipe.
        data: knows the statistics if neither the section nor the weights' run names any.
        section: name of the section, for messages.

    Raises:
        UserError: If there is no network, the weights do not fit, or the run that they are from
            learned other classes.
    """
    if config.model is None:
        raise UserError(
            f"{section}.model is missing; give its class path, "
            f"or {section}.recipe to train it first"
        )
    facts = None
    try:
        config.model = data.prepare_network(config.model)
        if config.weights is not None:
            facts = read_student_facts(config.weights)
            if facts is not None:
                check_classes(config, data, section, facts)
                data.check_network(facts.entries, str(facts.path.parent))
            load_weights(config.model, config.weights)
        return normalized(config, data, section, facts)
    except UserError as error:
        said = str(error)
        raise UserError(said if section in said else f"{section}: {said}") from error


@dataclass
class TrainingSetup:
    """A recipe ready for its first step.

    Attributes:
        setup: data and networks.
        distiller: student and method on the device, with the method's trainable parts.
        optimizer: of all trainable parameters.
        cap: keeps the method from pulling harder than the labels; None if the recipe has none.
        sampler: the order of the training data; its length is the number of steps of an epoch.
        training: loads training batches.
        loading: loads evaluation batches.
        example: one real training batch, on the device.
    """

    setup: Setup
    distiller: Distiller
    optimizer: torch.optim.Optimizer
    cap: GradientCap | None
    sampler: EpochSampler
    training: BatchLoader
    loading: EvalLoading
    example: Batch

    @classmethod
    def of(cls, setup: Setup, accelerator: Accelerator) -> TrainingSetup:
        """Make everything ready for training.

        Raises:
            UserError: If the data, a layer or a shape does not fit.
        """
        recipe = setup.recipe
        train = recipe.train
        device = accelerator.device
        check_calibrates(recipe)
        for remark in recipe.data.remarks(setup.parts):
            warn(remark)
        rank, world = accelerator.process_index, accelerator.num_processes
        recipe.task.check_method(recipe.method)
        recipe.task.prepare(setup.parts["train"])
        samples = recipe.method.build_data(setup.parts["train"], setup.teacher)
        samples = with_repeated_views(recipe, samples)
        sampler = EpochSampler.over(samples, train.batch_size, recipe.seed, rank=rank, world=world)
        training = training_loader(samples, sampler, train.num_workers, device)
        teacher = cached_teacher(setup, samples, device)
        example = _first(training)
        check_layers(recipe.method, setup.student, setup.teacher)
        student = setup.student.to(device)
        if train.channels_last:
            for network in (student, *setup.teacher.models().values()):
                network.to(memory_format=torch.channels_last)
        with blame_network(student, setup.teacher, recipe.task, example):
            check_student(student, recipe.task, example, recipe.data)
            distiller = Distiller(
                student, teacher, recipe.method, recipe.task, accumulate=train.accumulate
            )
            distiller.setup(example)
            optimizer = checked_optimizer(distiller, train)
        cap = _gradient_cap(distiller, train, accelerator)
        if train.compile:
            compile_networks(distiller.student, *setup.teacher.models().values())
        # Dropout differs between ranks; the weights above do not.
        set_seed(recipe.seed + rank)
        loading = setup.eval_loading(device, rank, world)
        return cls(setup, distiller, optimizer, cap, sampler, training, loading, example)

    def training_batches(self) -> Iterable[Batch]:
        """Give the training batches of the sampler's epoch on the device."""
        return self.training


def make_accelerator(train: TrainConfig, out: Path | None = None) -> Accelerator:
    """Return an accelerator for one run.

    Accelerate remembers the mixed precision of the first accelerator of a process and refuses
    another one; a teacher and its student may differ, so that memory is reset. There is no public
    call for it.

    Args:
        train: precision and trackers.
        out: the run's folder; None for a run that logs nothing.

    Raises:
        UserError: If several processes were launched that would be runs of their own or shard the
            student, or the device does not have the precision.
    """
    refuse_sharding()
    check_devices()
    AcceleratorState._reset_state()
    cpu = needs_cpu()
    try:
        if out is None:
            accelerator = Accelerator(mixed_precision=train.precision, cpu=cpu)
        else:
            trackers = list(train.log_with) or None
            accelerator = Accelerator(
                mixed_precision=train.precision, log_with=trackers, project_dir=str(out), cpu=cpu
            )
    except ValueError as error:  # fp16 on a CPU, bf16 on an old GPU
        raise UserError(
            f"train.precision {train.precision} does not work on this machine: {reason(error)}; "
            "take bf16 or no"
        ) from error
    if train.precision == "fp16" and accelerator.device.type == "cpu":
        # Accelerate would go on without the scaling that half precision needs.
        raise UserError("train.precision fp16 needs a GPU, and there is none; take bf16 or no")
    check_launch(accelerator)
    if accelerator.num_processes > 1:
        end_group_at_exit()
    return accelerator


def _gradient_cap(
    distiller: Distiller, train: TrainConfig, accelerator: Accelerator
) -> GradientCap | None:
    method = distiller.method
    # Without a method, or with labels of no weight, there is nothing to hold, or to measure it by.
    if train.gradient_cap is None or not method.uses_teacher or not method.task_weight:
        return None
    scaler = accelerator.scaler
    scale = None if scaler is None else scaler.scale
    return GradientCap(distiller, train.gradient_cap, scale=scale)


def _first(loader: Iterable[Any]) -> Batch:
    try:
        for batch in loader:
            return Batch.of(batch)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the training data cannot be loaded: {reason(error)}; check the data and data.augment"
        ) from error
    raise UserError("the training data is empty; check data.root and num_labels")
