"""The hand-written gradient of the centered, row-scaled alignment against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.operators import count_operators
from tutelage.methods import rcka_loss
from tutelage.similarity._alignment_by_autograd import alignment_by_autograd
from tutelage.similarity._fused_centered import centered_rows
from tutelage.similarity.alignment import alignment

SHAPES = {"wide": (6, 20, 20), "tall": (30, 4, 4), "two widths": (12, 5, 9)}


def features(shape: tuple[int, int, int], offset: float) -> tuple[Tensor, Tensor]:
    n, p, q = shape
    return (
        torch.randn(n, p, dtype=torch.float64) + offset,
        torch.randn(n, q, dtype=torch.float64) * 3 + offset,
    )


def gradients(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves))


@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_value_and_gradients_are_those_of_autograd(
    shape: tuple[int, int, int], offset: float
) -> None:
    x, y = (each.requires_grad_() for each in features(shape, offset))
    found = centered_rows(x, y)
    assert found is not None
    expected = alignment_by_autograd(x, y, "rows", debiased=False)
    assert found.item() == pytest.approx(expected.item(), abs=1e-13)
    for by_hand, by_autograd in zip(gradients(found, x, y), gradients(expected, x, y), strict=True):
        assert torch.allclose(by_hand, by_autograd, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_float32_keeps_its_digits(offset: float) -> None:
    x, y = features((64, 100, 100), offset)
    expected = alignment(x, y.requires_grad_(), center=True, scale="rows")
    (exact,) = gradients(expected, y)
    single = y.detach().float().requires_grad_()
    value = centered_rows(x.float(), single)
    assert value is not None
    assert value.item() == pytest.approx(expected.item(), abs=3e-6)
    (gradient,) = gradients(value, single)
    assert float((gradient.double() - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize("what", ["zero row", "tiny", "huge", "constant", "far", "nan"])
def test_what_is_not_ordinary_is_left_to_the_careful_form(what: str) -> None:
    x, y = (each.float() for each in features((12, 5, 5), 0.0))
    if what == "zero row":
        x[2] = 0.0
    elif what in ("tiny", "huge"):
        x *= 1e-14 if what == "tiny" else 1e14
    elif what == "constant":
        x[:] = 0.1
    elif what == "far":
        x += 1e4
    else:
        x[0, 0] = torch.nan
    assert centered_rows(x, y) is None
    assert centered_rows(y, x) is None


def test_the_gradient_refuses_to_be_differentiated_again() -> None:
    x, y = (each.requires_grad_() for each in features((6, 4, 4), 0.0))
    value = alignment(x, y, center=True, scale="rows")
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


@pytest.mark.parametrize("num_classes", [10, 100])
def test_the_centered_logit_terms_take_few_operators(num_classes: int) -> None:
    teacher, student = torch.randn(2, 64, num_classes)
    student.requires_grad_()

    def step() -> None:
        student.grad = None
        torch.stack(list(rcka_loss(student, teacher, center=True).values())).sum().backward()

    # 294 and 353 by autograd alone; the official uncentered form takes 160.
    assert count_operators(step).counts.total() <= 100
