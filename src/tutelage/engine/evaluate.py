"""Evaluate networks with their task, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Evaluation, Output, Task, Teacher
from tutelage.core.modes import eval_mode
from tutelage.data.samples import Samples
from tutelage.engine.loader import evaluation_loader
from tutelage.errors import UserError

MAX_RECORDED_BYTES = 2**30


@dataclass(frozen=True)
class EvalLoading:
    """How evaluation batches are loaded.

    Attributes:
        batch_size: items in a batch.
        num_workers: data loading processes.
        device: where the batches go.
        rank: of this process.
        world: number of processes.
    """

    batch_size: int
    num_workers: int
    device: torch.device
    rank: int = 0
    world: int = 1

    def batches(self, samples: Samples) -> Iterator[Batch]:
        """Give every item once, this rank's share, on the device."""
        loader = evaluation_loader(
            samples, self.batch_size, self.num_workers, rank=self.rank, world=self.world
        )
        return to_device(loader, self.device)


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Give batches on a device; a copy to an accelerator does not wait."""
    for batch in batches:
        yield Batch.of(batch).to(device, non_blocking=True)


@torch.no_grad()
def evaluate(
    model: nn.Module, task: Task, parts: Mapping[str, Samples], run: Evaluation
) -> dict[str, float]:
    """Return the task's metrics of a network, in eval mode and without gradient.

    Args:
        model: the mode of every submodule is restored.
        task: how it is evaluated.
        parts: the data by name.
        run: which part, and how to load it.
    """
    with eval_mode(model):
        metrics = task.evaluate(model, parts, run)
    if not isinstance(metrics, Mapping) or task.monitor not in metrics:
        known = sorted(metrics) if isinstance(metrics, Mapping) else type(metrics).__name__
        raise UserError(
            f"the task ({type(task).__name__}) chooses the best epoch by its monitor "
            f"{task.monitor!r}, but its metrics are {known}; let them agree"
        )
    return metrics


def evaluation(part: str, loading: EvalLoading, teacher: Teacher | None = None) -> Evaluation:
    """Return how to evaluate on a part of the data."""
    return Evaluation(part, loading.batches, teacher)


def is_one_pass(task: Task) -> bool:
    """Return whether a task evaluates by one pass over one part, and reads nothing else."""
    return type(task).evaluate is Task.evaluate


class RecordedTeacher(Teacher):
    """A teacher that is asked once per batch while several networks are evaluated beside it.

    Outputs are kept up to 1 GiB; a batch beyond that is answered by the teacher again.

    Args:
        teacher: answers a batch for the first time.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._outputs: dict[tuple[int, ...], Output] = {}
        self._bytes = 0

    def with_taps(self, layers: Sequence[str]) -> RecordedTeacher:
        """Return a teacher that records these layers, with nothing kept yet."""
        return RecordedTeacher(self.teacher.with_taps(layers))

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return the kept outputs of the batch, or ask the teacher."""
        key = tuple(batch.ids.tolist()) if "ids" in batch else ()
        if key in self._outputs:
            return self._outputs[key]
        output = self.teacher(batch, inputs, student)
        size = _num_bytes(output.output) + _num_bytes(output.features)
        if key and self._bytes + size <= MAX_RECORDED_BYTES:
            self._outputs[key] = output
            self._bytes += size
        return output

    def models(self) -> Mapping[str, nn.Module]:
        """Return the teacher's networks."""
        return self.teacher.models()


def _num_bytes(value: Any) -> int:
    """Return the size of all tensors in nested containers."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(_num_bytes, value))
    return 0
