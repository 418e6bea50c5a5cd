"""The sections of a recipe as typed dataclasses.

The command line fills them from YAML; in Python you build them yourself, or call `load_recipe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from tutelage.core import Method, Task
from tutelage.data import Data
from tutelage.errors import UserError, near_misses
from tutelage.recipes._train_checks import (
    check_cache,
    check_pieces,
    check_same_caches,
    check_schedule,
    check_types,
)

# Accelerate's trackers, and the modules that each of them needs: any one of them will do.
TRACKERS = {
    "aim": ("aim",),
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
TRACKER_EXTRAS = ("mlflow", "tensorboard", "trackio", "wandb")

MAX_NUMBER = 2**31 - 1  # of epochs, samples, processes


@dataclass
class StudentConfig:
    """The network to train.

    Args:
        model: any module; the data set's input normalization is applied to it.
        weights: a safetensors or torch checkpoint file, a run folder, or `hf://owner/name`,
            to start from.
        mean: input normalization of its own; None takes the data set's.
        std: as mean.
    """

    model: nn.Module
    weights: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_types("student", self)


@dataclass
class TeacherConfig:
    """A network to learn from.

    Args:
        model: any module; None with `recipe`, whose student it then is.
        weights: a safetensors or torch checkpoint file, a run folder, or `hf://owner/name`.
        recipe: the recipe that trains the teacher: a file, relative to the recipe that names it, or
            the name of a shipped recipe. The teacher is trained once, on the data of the student's
            recipe, and reused by every run that names it.
        mean: input normalization of its own; None takes the data set's.
        std: as mean.
        preflight: check the teacher on validation data before training.
        cache: `memory` runs the teacher once over the training data, before training, and keeps its
            outputs for the run; `disk` keeps them in files, for all runs with this teacher and
            data. Data must not be augmented, or see `cache_views`.
        cache_views: with augmentation, how many views of each sample the cache holds; later epochs
            repeat them, for student and teacher. None is for data without augmentation.
        cache_dir: folder of the files of `disk`.
        cache_dtype: float16 halves the files of `disk`.
        cache_top_k: how many logits of a sample `disk` keeps, the others sharing what is left of
            the probability; None keeps all.
    """

    model: nn.Module | None = None
    weights: str | None = None
    recipe: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    preflight: bool = True
    cache: Literal["none", "memory", "disk"] = "none"
    cache_views: int | None = None
    cache_dir: str = "runs/cache"
    cache_dtype: Literal["float32", "float16"] = "float32"
    cache_top_k: int | None = None

    def __post_init__(self) -> None:
        check_types("teacher", self)
        check_cache(self)


def _adamw() -> Callable[[Any], torch.optim.Optimizer]:
    return partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05)


@dataclass
class TrainConfig:
    """How long and how to optimize.

    Args:
        epochs: passes over the training data.
        batch_size: samples per optimizer step, over all processes together.
        accumulate: number of pieces in which the networks run on a batch, so that a step needs
            memory for one piece; losses see the whole batch as with 1. The student runs twice.
        eval_batch_size: samples per evaluation batch of one process; None takes batch_size.
        optimizer: any torch optimizer, as class path and arguments.
        weight_decay_norm_and_bias: False exempts parameters of one dimension (biases, norms) from
            weight decay.
        no_weight_decay: patterns of the names of further parameters to exempt, such as `pos_embed`
            or `*bias_table`.
        schedule: of the learning rate, after the warm-up.
        milestones: epochs at which the schedule `step` multiplies the rate by `gamma`.
        gamma: see milestones.
        warmup_epochs: linear warm-up from 0.
        gradient_cap: how many times as long as the gradient of the labels that of the method may
            be, see `GradientCap`; its weights are lowered where it would be longer. None takes them
            as they are, and so does a method whose `task_weight` is 0.
        max_grad_norm: clip the gradient norm to this; None does not clip.
        ema_decay: decay of an exponential moving average of the student, which is then what is
            evaluated and saved; None keeps no average.
        precision: mixed precision; similarity losses stay in float32 by themselves.
        compile: compile student and teacher with torch.compile.
        channels_last: let the weights of convolutions have channels last in memory, which is faster
            on GPUs in mixed precision.
        matmul_precision: of float32 products of matrices on GPUs, see
            `torch.set_float32_matmul_precision`; `high` (TF32) is faster. Similarity losses stay in
            full float32 by themselves.
        cudnn_benchmark: let cuDNN try its algorithms for every new shape, and take the fastest;
            runs may then differ in the last bits.
        num_workers: data loading processes; None takes none for data in memory and for fewer than
            1000 files, else one for every CPU but one, up to 8.
        num_threads: CPU threads of torch; None leaves them.
        checkpoint: which epoch's student is saved: the best on validation data, or the last.
        calibrate: `temperature` fits one on validation data after training, for classification:
            the metrics have what it does to test data, and student.json the number. The weights
            that are saved stay as they are.
        eval_every: epochs between validations.
        patience: validations in a row without a better one after which a run ends; None trains all
            epochs.
        save_every: epochs between checkpoints to resume from.
        cka_every: epochs between teacher × student layer maps, on a fixed batch of validation
            data; 0 draws none.
        log_with: Accelerate trackers, such as `tensorboard` or `wandb`.
    """

    epochs: int = 40
    batch_size: int = 64
    accumulate: int = 1
    eval_batch_size: int | None = None
    optimizer: Callable[[Any], torch.optim.Optimizer] = field(default_factory=_adamw)
    weight_decay_norm_and_bias: bool = True
    no_weight_decay: Sequence[str] = ()
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    gradient_cap: float | None = 1.0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    channels_last: bool = False
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    cudnn_benchmark: bool = False
    num_workers: int | None = None
    num_threads: int | None = None
    checkpoint: Literal["best", "last"] = "best"
    calibrate: Literal["none", "temperature"] = "none"
    eval_every: int = 1
    patience: int | None = None
    save_every: int = 1
    cka_every: int = 0
    log_with: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_types("train", self)
        _check_at_least(1, "epochs", self.epochs)
        _check_at_least(2, "batch_size", self.batch_size)
        _check_at_least(1, "accumulate", self.accumulate)
        check_pieces(self.batch_size, self.accumulate)
        _check_at_least(1, "eval_batch_size", self.eval_batch_size)
        _check_at_least(1, "eval_every", self.eval_every)
        _check_at_least(1, "patience", self.patience)
        _check_at_least(1, "save_every", self.save_every)
        _check_at_least(0, "num_workers", self.num_workers)
        _check_at_least(0, "cka_every", self.cka_every)
        _check_at_least(0, "warmup_epochs", self.warmup_epochs)
        _check_at_least(1, "num_threads", self.num_threads)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"train.ema_decay is a decay in [0, 1), got {self.ema_decay}")
        _check_at_least(0, "milestones", min(self.milestones, default=None))
        if not 0 < self.gamma < math.inf:
            raise UserError(
                f"train.gamma is the positive factor of the rate at a milestone, got {self.gamma}"
            )
        if self.gradient_cap is not None and not 0 < self.gradient_cap < math.inf:
            raise UserError(
                f"train.gradient_cap is a positive number, got {self.gradient_cap}; "
                "null takes the method's weights as they are"
            )
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UserError(
                f"train.max_grad_norm must be positive, got {self.max_grad_norm}; "
                "leave it out for no clipping"
            )
        check_schedule(self)
        _check_trackers(self.log_with)


@dataclass
class Recipe:
    """Everything that decides the outcome of a run.

    Args:
        data: the data set.
        task: the supervised task.
        student: the network to train.
        method: how the student learns from the teacher.
        teacher: the network to learn from; None for methods that need none.
        teachers: several teachers by name, instead of `teacher`.
        train: how long and how to optimize.
        num_labels: number of labeled training samples, balanced over classes, drawn by the seed;
            None takes all.
        seed: of the initial weights, the order of the data, the augmentation and the label subset.
    """

    data: Data
    task: Task
    student: StudentConfig
    method: Method
    teacher: TeacherConfig | None = None
    teachers: Mapping[str, TeacherConfig] | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    num_labels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_types("", self)
        check_seed(self.seed)
        if self.teacher is not None and self.teachers is not None:
            raise UserError("the recipe has both teacher and teachers; give one of them")
        check_same_caches(self.teachers or {})


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy's generator does not take.

    Raises:
        UserError: If it is negative, or 2³² or more.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is a whole number from 0 to {2**32 - 1}, got {seed}")


def _check_at_least(minimum: int, name: str, value: float | None) -> None:
    if value is not None and not minimum <= value <= MAX_NUMBER:
        limit = f"at least {minimum}" if not value > MAX_NUMBER else f"at most {MAX_NUMBER}"
        raise UserError(f"train.{name} must be {limit}, got {value:.10g}")


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed; Accelerate would go on without them."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(
                f"train.log_with: there is no tracker {name!r}{near_misses(name, TRACKERS)}"
            )
        if not any(find_spec(module) for module in TRACKERS[name]):
            package = f"'tutelage[{name}]'" if name in TRACKER_EXTRAS else name
            raise UserError(
                f"train.log_with: {name!r} is not installed; pip install {package}, or leave it out"
            )
