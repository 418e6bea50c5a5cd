"""What the tests of all methods share: steps, small networks, two ranks, vectors and comparisons.

make_step(logits, logits, labels)      the `Step` that a method sees, from tensors
setup_method(method, step)             what `Distiller.setup` does with a method, without networks
distill(method)                        a `Distiller` of two small CNNs, set up on `image_batch()`
Setting, IMAGES                        networks, batch and task that a method is tried on
two_ranks(function, folder)            what a function returns on each of two real processes
resnet, vit, mixer, swin, ZOO          small networks of timm with 7 classes, for 32 x 32 images
cases, tensor, listed                  the official code's numbers, in tests/reference
assert_close, gradient, EXACT_AND_SINGLE, kl_by_hand      comparisons
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm.models
import torch
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.ranks import fork_ranks
from tests.helpers.vectors import FOLDER, cases, tensor
from tutelage.core import (
    Batch,
    Distiller,
    FrozenTeacher,
    Method,
    NoTeacher,
    Output,
    Step,
    Task,
    Teacher,
)
from tutelage.core.distiller import check_finite
from tutelage.core.modes import eval_mode
from tutelage.models import small_cnn
from tutelage.tasks import Classification

__all__ = [
    "EXACT_AND_SINGLE",
    "FOLDER",
    "IMAGES",
    "LAYER_PAIRS",
    "ZOO",
    "Setting",
    "assert_close",
    "cases",
    "distill",
    "flat_gradient",
    "gradient",
    "gradients_on_rank",
    "image_batch",
    "kl_by_hand",
    "linear_batch",
    "linear_distiller",
    "linear_gradient",
    "listed",
    "make_step",
    "mixer",
    "resnet",
    "setup_method",
    "softmax_by_hand",
    "swin",
    "tensor",
    "two_ranks",
    "vit",
]

MethodT = TypeVar("MethodT", bound=Method)
ROOT = Path(__file__).parents[2]

LAYER_PAIRS = {"stage2": "stage2", "stage3": "stage3"}
"""Layer pairs of the two small CNNs of `distill`, whose widths differ."""


# ---- steps and methods ----


def make_step(
    student: Any = None,
    teacher: Any = None,
    labels: Tensor | None = None,
    *,
    student_features: Mapping[str, Tensor] | None = None,
    teacher_features: Mapping[str, Tensor] | None = None,
    progress: float = 1.0,
) -> Step:
    """Return a step of given logits and features; its task loss is the sum of the output.

    Args:
        student: the student's output, usually logits; None for a method that reads features only.
        teacher: the teacher's output.
        labels: of the batch; None for a batch without labels.
        student_features: the student's features by layer.
        teacher_features: the teacher's features by layer.
        progress: the share of the run that is done.
    """
    return Step(
        student=Output(student, student_features or {}),
        teacher=Output(teacher, teacher_features or {}),
        batch=Batch({"inputs": None, "labels": labels}),
        task_loss=torch.sum,
        progress=progress,
    )


def setup_method(method: MethodT, step: Step, teacher: Teacher | None = None) -> MethodT:
    """Set a method up on a step as `Distiller.setup` does, and return it."""
    check_finite(step)
    method.setup(step, NoTeacher() if teacher is None else teacher)
    with torch.no_grad(), eval_mode(method):
        method(step)
    return method


def image_batch(
    count: int = 12,
    size: int | tuple[int, int] = 28,
    channels: int = 1,
    num_classes: int = 10,
) -> tuple[Tensor, Tensor]:
    """Return the same random images and labels in every call."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(count, channels, height, width, generator=generator)
    return images, torch.randint(num_classes, (count,), generator=generator)


@dataclass(frozen=True)
class Setting:
    """What a method is tried on.

    A test module of methods for another task than classification has one, as `SETTING`.

    Attributes:
        student: returns a new student.
        teacher: returns a new teacher.
        batch: returns the same inputs and labels in every call.
        task: returns the task.
    """

    student: Callable[[], nn.Module]
    teacher: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    task: Callable[[], Task]


IMAGES = Setting(
    student=lambda: small_cnn(10, channels=1, width=8),
    teacher=lambda: small_cnn(10, channels=1, width=16),
    batch=image_batch,
    task=lambda: Classification(num_classes=10),
)


def distill(
    method: Method,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | Teacher | None = None,
    batch: Any = None,
    num_classes: int = 10,
    setting: Setting = IMAGES,
) -> Distiller:
    """Return a distiller that is set up, the same in every call.

    Args:
        method: builds the student, then its own parts.
        student: default: a small CNN of width 8 with the layers stage1, stage2, stage3, classifier.
        teacher: a network or a `Teacher`; default: the same CNN of width 16.
        batch: what it is set up on; default: `image_batch()`.
        num_classes: of the task.
        setting: where the defaults are from.
    """
    torch.manual_seed(0)
    is_default = num_classes == 10 or setting is not IMAGES
    if student is None:
        student = setting.student() if is_default else small_cnn(num_classes, 1, width=8)
    if teacher is None:
        teacher = setting.teacher() if is_default else small_cnn(num_classes, 1, width=16)
    if not isinstance(teacher, Teacher):
        teacher = FrozenTeacher(teacher)
    student = method.build_student(student, teacher)
    task = setting.task() if is_default else Classification(num_classes=num_classes)
    distiller = Distiller(student, teacher, method, task)
    distiller.setup(setting.batch() if batch is None else batch)
    return distiller


# ---- several processes ----

_ON_EACH_RANK = """
import importlib, sys
root, module, function, folder, *arguments = sys.argv[1:]
sys.path.insert(0, root)
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
# Before gloo starts threads: importing timm beside them now and then aborts a process at its end.
function = getattr(importlib.import_module(module), function)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
tensors = function(rank, *arguments)
save_file({k: v.detach().contiguous() for k, v in tensors.items()}, f"{folder}/{rank}.safetensors")
torch.distributed.destroy_process_group()
"""


def two_ranks(
    function: Callable[..., Mapping[str, Tensor]],
    folder: Path,
    *arguments: str,
    processes: int = 2,
) -> list[dict[str, Tensor]]:
    """Call a function on two processes that are joined by gloo; return what each one gives.

    Args:
        function: of a test module's top level; it gets the rank and the arguments, and returns
            tensors by name.
        folder: an empty folder, such as `tmp_path`.
        arguments: for the function.
        processes: how many there are, if not two.
    """
    script = folder / "on_each_rank.py"
    script.write_text(_ON_EACH_RANK)
    called = (ROOT, function.__module__, function.__name__, folder, *arguments)
    fork_ranks(script, *called, processes=processes)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(processes)]


def gradients_on_rank(rank: int, *modules: str) -> dict[str, Tensor]:
    """Return the gradients of one rank's share of `linear_batch`, averaged over ranks by DDP.

    Args:
        rank: takes every second item, of two.
        modules: test modules, of whose RANK_EXAMPLES and SHARE_EXAMPLES all losses are taken.
    """
    images, labels = linear_batch()
    world = torch.distributed.get_world_size()
    gradients = {}
    for module_name in modules:
        module = importlib.import_module(module_name)
        examples = getattr(module, "RANK_EXAMPLES", {}) | getattr(module, "SHARE_EXAMPLES", {})
        for name, make in examples.items():
            distiller = linear_distiller(make())
            parallel = DistributedDataParallel(distiller)
            sum(parallel((images[rank::world], labels[rank::world])).values()).backward()
            gradients[name] = flat_gradient(distiller.student)
    return gradients


def linear_batch() -> tuple[Tensor, Tensor]:
    """Return 24 items in float64 and their labels, the same in every call."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(24, 6, generator=generator).double(), torch.arange(24) % 5


def linear_distiller(method: Method) -> Distiller:
    """Return a distiller of two linear networks in float64, each with the layers `0` and `1`."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 5, bias=False)).double()
    teacher = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 5)).double()
    return distill(method, student=student, teacher=teacher, batch=linear_batch(), num_classes=5)


def linear_gradient(method: Method, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the student's gradient of `linear_distiller` on a batch, as one vector."""
    distiller = linear_distiller(method)
    sum(distiller(batch).values()).backward()
    return flat_gradient(distiller.student)


def flat_gradient(network: nn.Module) -> Tensor:
    """Return the gradients of all parameters as one vector; zeros for one without a gradient."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return torch.cat([part.flatten() for part in parts])


# ---- small networks of timm, with 7 classes ----


def resnet(in_chans: int = 3, **settings: Any) -> nn.Module:
    """Return a residual network with the layers layer1 to layer4."""
    return timm.models.ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        num_classes=7,
        in_chans=in_chans,
        channels=(10, 12, 16, 24),
        stem_width=8,
        **settings,
    )


def vit(size: int | tuple[int, int] = 32, depth: int = 4, **settings: Any) -> nn.Module:
    """Return a vision transformer with the layers blocks.0, blocks.1, ..., of 4 x 4 + 1 tokens."""
    return timm.models.VisionTransformer(
        img_size=size,
        patch_size=8,
        in_chans=3,
        num_classes=7,
        embed_dim=12,
        depth=depth,
        num_heads=2,
        **settings,
    )


def mixer() -> nn.Module:
    """Return an MLP-Mixer with the layers blocks.0 to blocks.3, of 4 x 4 tokens."""
    return timm.models.MlpMixer(
        num_classes=7, img_size=32, patch_size=8, num_blocks=4, embed_dim=12
    )


def swin(stages: int = 4) -> nn.Module:
    """Return a Swin transformer with the layers layers.0, layers.1, ..., channels last."""
    return timm.models.SwinTransformer(
        img_size=32,
        patch_size=2,
        in_chans=3,
        num_classes=7,
        embed_dim=8,
        depths=(1,) * stages,
        num_heads=(1, 1, 2, 2)[:stages] if stages > 2 else (1, 2)[:stages],
        window_size=4,
    )


ZOO: dict[str, Callable[[], nn.Module]] = {"cnn": resnet, "vit": vit, "mixer": mixer, "swin": swin}


# ---- numbers ----

EXACT_AND_SINGLE = [
    pytest.param(torch.float64, 1e-12, id="float64"),
    pytest.param(torch.float32, 1e-5, id="float32"),
]
"""Values of `pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)`."""


def listed(name: str, kind: str = "") -> list[dict[str, Any]]:
    """Return the cases of a vectors' JSON that lists them, perhaps only those of a kind."""
    entries: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return [case for case in entries if kind in case.get("kind", "")]


def assert_close(actual: Tensor, expected: Tensor, error: float) -> None:
    """Compare to a tolerance that is relative to the largest expected entry."""
    size = float(expected.detach().abs().max()) or 1.0
    torch.testing.assert_close(
        actual.detach().double(), expected.detach().double(), rtol=0, atol=error * size
    )


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of a scalar with respect to a tensor; the graph stays."""
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def softmax_by_hand(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Return the probabilities of one item."""
    top = max(logits)
    powers = [math.exp((z - top) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def kl_by_hand(target: Sequence[float], probabilities: Sequence[float]) -> float:
    """Return KL(target ‖ probabilities) of one item."""
    return sum(q * math.log(q / p) for q, p in zip(target, probabilities, strict=True))
