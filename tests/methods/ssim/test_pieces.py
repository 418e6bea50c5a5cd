"""Large maps are summed piece by piece, to the same loss and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.methods.ssim import pieces, ssim_loss

OPTIONS: list[dict[str, Any]] = [
    {},
    {"border": "valid"},
    {"border": "renorm", "ignore_dead": True},
    {"normalize": "tensor", "ignore_dead": True},
    {"normalize": "teacher", "exponents": (1.0, 0.5, 2.0)},
    {"normalize": "none", "max_val": 2.0},
    {"min_range": 0.5, "detach_range": True},
]


def maps() -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 2, 5, 13, 14, generator=noise, dtype=torch.float64)
    student[:, 1] *= 1e-2
    teacher[1, 2] = 0.5  # dead
    return student.requires_grad_(), teacher.requires_grad_()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_loss_is_that_of_the_whole(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = maps()
    whole = ssim_loss(*sides, **options)
    expected = torch.autograd.grad(whole, sides)
    for size in (1, 800):  # a channel at a time; two, and one in the end
        monkeypatch.setattr(pieces, "PIECE", size)
        loss = ssim_loss(*sides, **options)
        assert loss.item() == pytest.approx(whole.item(), abs=1e-14)
        for found, gradient in zip(torch.autograd.grad(3 * loss, sides), expected, strict=True):
            torch.testing.assert_close(found, 3 * gradient, rtol=1e-9, atol=1e-14)


def test_the_gradient_can_be_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = maps()

    def second(size: int) -> Tensor:
        monkeypatch.setattr(pieces, "PIECE", size)
        loss = ssim_loss(student, teacher.detach())
        (gradient,) = torch.autograd.grad(2 * loss, student, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), student)[0]

    torch.testing.assert_close(second(1), second(2**18), rtol=1e-9, atol=1e-14)


def test_nothing_is_differentiated_where_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 1)
    student, teacher = (side.detach() for side in maps())
    assert not ssim_loss(student, teacher).requires_grad
    with torch.no_grad():
        assert not ssim_loss(*maps()).requires_grad
    teacher.requires_grad_()
    loss = ssim_loss(student.half(), teacher)
    assert torch.autograd.grad(loss, teacher)[0].shape == teacher.shape
