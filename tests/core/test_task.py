from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import FrozenTeacher, Metrics, NoTeacher, Task, UserError
from tutelage.core import Batch, Evaluation
from tutelage.core.overlay import DrawsAgreement, DrawsOverlays
from tutelage.core.task import check_num_classes
from tutelage.methods import KD, PCKA


class Sums(Metrics):
    """Adds up what a network and its teacher gave."""

    def __init__(self) -> None:
        self.total = 0.0
        self.teacher_total: float | None = None

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        self.total += output.sum().item() + batch.labels.sum().item()
        if teacher is not None:
            self.teacher_total = (self.teacher_total or 0.0) + teacher.sum().item()

    def compute(self) -> dict[str, float]:
        metrics = {"total": self.total}
        if self.teacher_total is not None:
            metrics["teacher_total"] = self.teacher_total
        return metrics


class Regression(Task):
    """Inputs by name, one number an item."""

    monitor = "total"

    def __init__(self, power: int = 2) -> None:
        self.power = power

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        return (output - batch.labels).abs().pow(self.power).mean()

    def metrics(self) -> Metrics:
        return Sums()

    def chance_level(self) -> float:
        return 0.0


class Named(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, *, x: Tensor) -> Tensor:
        return self.factor * x


BATCHES = [
    Batch({"inputs": {"x": torch.full((count,), 1.0)}, "labels": torch.full((count,), 10.0)})
    for count in (2, 3)
]


def load(part: Any) -> Iterable[Batch]:
    return [BATCHES[number] for number in part]


def test_the_default_evaluation_is_one_pass_over_the_part() -> None:
    task, parts = Regression(), {"validation": [0], "test": [0, 1]}
    assert task.evaluate(Named(2.0), parts, Evaluation("test", load)) == {"total": 60.0}
    run = Evaluation("validation", load, FrozenTeacher(Named(3.0)))
    assert task.evaluate(Named(2.0), parts, run) == {"total": 24.0, "teacher_total": 6.0}


def test_the_defaults_of_a_task() -> None:
    task, teacher = Regression(power=1), NoTeacher()
    assert repr(task) == "Regression(power=1)"
    assert task.min_gain_over_chance == 0.1
    assert task.connect_teacher(teacher, Named(1.0)) is teacher
    task.validate(torch.ones(2), BATCHES[0])
    with pytest.raises(RuntimeError, match="must match the size"):
        task.validate(torch.ones(5), BATCHES[0])


def test_only_data_with_classes_is_compared_with_the_task() -> None:
    check_num_classes(3, None)
    check_num_classes(3, object())
    check_num_classes(3, SimpleNamespace(classes=["a", "b", "c"]))
    with pytest.raises(
        UserError, match=r"the data has 2 classes, but task\.num_classes is 3; set it and the"
    ):
        check_num_classes(3, SimpleNamespace(classes=["a", "b"]))


def test_a_task_or_method_that_draws_nothing_need_not_say_so() -> None:
    assert not isinstance(Regression(), DrawsOverlays)
    assert not isinstance(KD(), DrawsAgreement)
    assert isinstance(PCKA({"0": "0"}), DrawsAgreement)
