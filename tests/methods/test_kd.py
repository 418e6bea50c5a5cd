"""KD against probabilities computed item by item."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import distill, kl_by_hand, softmax_by_hand
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import KD, kd_hard_loss, kd_loss

EXAMPLES: dict[str, Callable[[], Method]] = {
    "kd": KD,
    "kd hard": lambda: KD(hard=True),
}


def by_hand(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Return T² KL from probabilities, item by item."""
    total = 0.0
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        probabilities = softmax_by_hand(student_row, temperature)
        total += kl_by_hand(softmax_by_hand(teacher_row, temperature), probabilities)
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_the_batch_mean_of_the_divergence(temperature: float) -> None:
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    assert kd_loss(student, teacher, temperature=temperature).item() == pytest.approx(
        by_hand(student, teacher, temperature), abs=1e-12
    )


def test_the_gradient_hardly_depends_on_the_temperature() -> None:
    student, teacher = torch.randn(2, 64, 10, dtype=torch.float64)
    norms = []
    for temperature in (4.0, 40.0, 400.0):
        leaf = student.clone().requires_grad_()
        kd_loss(leaf, teacher, temperature=temperature).backward()
        norms.append(float(leaf.grad.norm()))
    assert max(norms) < 1.5 * min(norms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_gaps_are_safe_in_value_and_gradient(dtype: torch.dtype) -> None:
    student = torch.tensor([[0.0, 900.0], [500.0, -500.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[900.0, 0.0], [-500.0, 500.0]], dtype=dtype)
    loss = kd_loss(student, teacher, temperature=1.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(950.0, rel=1e-3)
    assert student.grad.isfinite().all()


def test_maps_of_logits_are_averaged_over_positions() -> None:
    student, teacher = torch.randn(2, 3, 5, 4, 2)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    assert torch.isclose(kd_loss(student, teacher), kd_loss(*flat))


def test_hard_labels_are_the_teachers_choice() -> None:
    student, teacher = torch.randn(2, 8, 5)
    expected = torch.nn.functional.cross_entropy(student, teacher.argmax(1))
    assert torch.equal(kd_hard_loss(student, teacher), expected)


def test_the_loss_is_continuous_in_its_weight() -> None:
    batch = (torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
    torch.manual_seed(1)
    student, teacher = nn.Linear(8, 3), nn.Linear(8, 3)
    values = []
    for weight in (0.0, 1e-9, 1e-3):
        method = KD(weight=weight, task_weight=1 - weight)
        distiller = distill(method, student=student, teacher=teacher, batch=batch, num_classes=3)
        values.append(sum(distiller(batch).values()))
    assert torch.allclose(values[0], values[1], atol=1e-6)
    assert torch.allclose(values[0], values[2], atol=1e-2)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 5),
            r"got \(4, 3\) from the student and \(4, 5\) from the teacher",
        ),
        (torch.zeros(3), torch.zeros(3), "needs logits"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "needs logits"),
        (
            torch.zeros(4, 3, dtype=torch.int64),
            torch.zeros(4, 3),
            r"torch.int64 and torch.float32; use .float",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    for loss in (kd_loss, kd_hard_loss):
        with pytest.raises(UserError, match=message):
            loss(student, teacher)


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(UserError, match="temperature of KD must be positive, got 0"):
        KD(temperature=0.0)
    with pytest.raises(UserError, match="temperature of KD must be positive"):
        kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature=float("nan"))


def test_a_teacher_that_gives_nan_is_refused_before_training() -> None:
    teacher = nn.Linear(8, 3)
    nn.init.constant_(teacher.weight, float("nan"))
    batch = (torch.randn(4, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="the teacher's output holds NaN or infinity"):
        distill(KD(), student=nn.Linear(8, 3), teacher=teacher, batch=batch, num_classes=3)
