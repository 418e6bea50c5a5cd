"""A recipe: everything that decides the outcome of a run, as typed dataclasses.

The command line fills them from YAML; in Python you build them yourself. Wiring is Python, numbers are YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from tutelage.core import Method, Task
from tutelage.data import Data
from tutelage.errors import UserError, near_misses


@dataclass
class Student:
    """The network to train.

    Args:
        network: any module; it takes images in [0, 1], the normalisation is applied for it.
        weights: a safetensors or torch checkpoint file, or a run folder, to start from.
        mean, std: its own input normalisation; None takes the data set's.
    """

    network: nn.Module
    weights: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclass
class TeacherNetwork:
    """The network to learn from.

    Args:
        network: any module; None with `recipe`, which then says what it is.
        weights: a safetensors or torch checkpoint file, or a run folder.
        recipe: path of the recipe that trains the teacher, relative to this one; it is trained once, on the same
            data, and reused by every run that names it.
        mean, std: its own input normalisation; None takes the data set's.
        preflight: check the teacher on validation data before training.
        remember: let the teacher look at every training image once, before training, and keep its answers in memory;
            for data without augmentation.
    """

    network: nn.Module | None = None
    weights: str | None = None
    recipe: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    preflight: bool = True
    remember: bool = False


@dataclass
class Training:
    """How long and how to optimise.

    Args:
        epochs: passes over the training data.
        batch_size: images per optimiser step, over all processes together.
        optimizer: any torch optimiser, as class path and arguments.
        decay_vectors: False spares parameters of one dimension (biases, norms) the weight decay.
        undecayed: patterns of the names of further parameters to spare it, such as `pos_embed` or `*bias_table`.
        schedule: learning-rate schedule after the warm-up.
        milestones: epochs at which `step` multiplies the rate by `gamma`.
        gamma: see milestones.
        warmup_epochs: linear warm-up from 0.
        clip_norm: clip the gradient norm to this.
        ema: decay of an exponential moving average of the student; it is then what is evaluated and shipped.
        precision: mixed precision; similarity losses stay in float32 by themselves.
        compile: torch.compile student and teacher.
        workers: data loading processes.
        threads: CPU threads of torch; None leaves them.
        keep: ship the epoch that is best on validation data, or the last.
        evaluate_every: epochs between validations.
        checkpoint_every: epochs between checkpoints.
        map_every: epochs between layer maps, teacher × student, on a fixed batch of validation images; 0 is none.
        trackers: Accelerate trackers, such as `tensorboard` or `wandb`.
    """

    epochs: int = 40
    batch_size: int = 64
    optimizer: Callable[[Any], torch.optim.Optimizer] = field(
        default_factory=lambda: partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05)
    )
    decay_vectors: bool = True
    undecayed: Sequence[str] = ()
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    workers: int = 0
    threads: int | None = None
    keep: Literal["best", "last"] = "best"
    evaluate_every: int = 1
    checkpoint_every: int = 1
    map_every: int = 0
    trackers: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._check_counts()
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"train.ema is a decay in [0, 1), got {self.ema}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"train.clip_norm must be positive, got {self.clip_norm}; leave it out for no clipping")
        if self.trackers:
            _check_trackers(self.trackers)

    def _check_counts(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 2),
            ("evaluate_every", 1),
            ("checkpoint_every", 1),
            ("workers", 0),
            ("map_every", 0),
            ("warmup_epochs", 0),
            ("threads", 1),
        ):
            value = self.__dict__[name]
            if value is not None and value < least:
                raise UserError(f"train.{name} must be at least {least}, got {value}")


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed; Accelerate would go on without them."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known, there = [str(name) for name in LOGGER_TYPE_TO_CLASS], [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise UserError(f"train.trackers: there is no tracker {name!r}{near_misses(name, known)}")
        if name not in there:
            raise UserError(f"train.trackers: {name!r} is not installed; pip install {name}, or leave it out")


@dataclass
class Recipe:
    """Everything that decides the outcome of a run.

    Args:
        data: where the images come from.
        task: the supervised task.
        student: the network to train.
        method: what the teacher teaches.
        teacher: the network to learn from; None for methods that need none.
        train: how long and how to optimise.
        labels: number of labelled training images, balanced over classes, drawn by the seed; None takes all.
        seed: of the initial weights, the order of the data, the augmentation and the label subset.
    """

    data: Data
    task: Task
    student: Student
    method: Method
    teacher: TeacherNetwork | None = None
    train: Training = field(default_factory=Training)
    labels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy's generator does not take.

    Raises:
        UserError: it is negative, or 2³² or more.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is a whole number from 0 to {2**32 - 1}, got {seed}")
