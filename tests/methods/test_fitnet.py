"""FitNet: the mean squared difference, and the projections that it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import LAYER_PAIRS, make_step, setup_method
from tutelage.core import Method, Step
from tutelage.errors import UserError
from tutelage.methods import FitNet, fitnet_loss

EXAMPLES: dict[str, Callable[[], Method]] = {"fitnet": lambda: FitNet(LAYER_PAIRS)}


def set_up(student: Tensor, teacher: Tensor, **options: Any) -> tuple[FitNet, Step]:
    step = make_step(student_features={"a": student}, teacher_features={"b": teacher})
    return setup_method(FitNet({"a": "b"}, **options), step), step


def test_it_is_the_mean_squared_difference() -> None:
    student, teacher = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    assert torch.isclose(fitnet_loss(student, teacher), ((student - teacher) ** 2).mean())


def test_equal_widths_need_no_projection() -> None:
    features = torch.randn(2, 4, 3, 3)
    method, step = set_up(features, features + 2.0, weight=0.5)
    assert not list(method.parameters())
    assert method(step)["fitnet/a"].item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [
        ((2, 3, 8, 8), (2, 5, 8, 8), nn.Conv2d),
        ((2, 7, 3), (2, 7, 5), nn.Linear),
        ((6, 3), (6, 5), nn.Linear),
    ],
)
def test_a_projection_brings_the_width_and_is_trained(
    student: tuple[int, ...], teacher: tuple[int, ...], kind: type[nn.Module]
) -> None:
    method, step = set_up(torch.randn(student), torch.randn(teacher))
    assert type(method.projections[0]) is kind
    assert [p.numel() for p in method.parameters()] == [15]
    method(step)["fitnet/a"].backward()
    assert method.projections[0].weight.grad.abs().sum() > 0


def test_a_linear_relation_is_learned_to_zero() -> None:
    student = torch.randn(64, 6, 4, 4)
    teacher = torch.einsum("oc,nchw->nohw", torch.randn(3, 6), student)
    method, step = set_up(student, teacher)
    optimizer = torch.optim.LBFGS(method.parameters(), max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = method(step)["fitnet/a"]
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    assert method(step)["fitnet/a"] < 1e-6


def test_a_map_of_another_size_is_resized_to_the_teachers() -> None:
    method, step = set_up(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 7, 5))
    assert method(step)["fitnet/a"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    loss = fitnet_loss(torch.full((4,), 300.0, dtype=dtype), torch.zeros(4, dtype=dtype))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(90_000.0, rel=1e-2)


def test_features_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        UserError,
        match=r"got \(2, 3\) from the student and \(2, 4\) from the teacher; use the FitNet",
    ):
        fitnet_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(
        UserError, match=r"the pair a → b gives features \(2, 3\) and \(2, 3, 4, 4\)"
    ):
        set_up(torch.zeros(2, 3), torch.zeros(2, 3, 4, 4))
    with pytest.raises(
        UserError, match=r"the pair a → b gives \(2, 3, 4, 4\) and \(2, 4, 4, 6\), .* channels last"
    ):
        set_up(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 6))
    with pytest.raises(UserError, match="the pair a → b has 5 and 7 tokens"):
        set_up(torch.zeros(2, 5, 3), torch.zeros(2, 7, 3))
    with pytest.raises(UserError, match="the teacher's feature 'b' holds NaN"):
        set_up(torch.zeros(2, 3), torch.full((2, 3), float("nan")))
    with pytest.raises(UserError, match="FitNet needs at least one pair"):
        FitNet({})
