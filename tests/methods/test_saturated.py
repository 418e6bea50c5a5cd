"""Students that give nearly all items to one class, where 1 - p has no digits of p left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.methods import dist_loss, rcka_loss

CLASSES = 5
LABELS = torch.arange(10) % CLASSES
ONE_HOT = torch.eye(CLASSES)[LABELS]


def logits(margin: float, exceptions: int = 0) -> tuple[Tensor, Tensor]:
    """Return a student that prefers class 0 by a margin, with exceptions, and a sure teacher."""
    student = torch.randn(10, CLASSES)
    student[exceptions:, 0] += margin
    return student, torch.randn(10, CLASSES) + 3 * ONE_HOT


def without_the_one(z: Tensor, *, class_0: bool) -> Tensor:
    """Return softmax(z) in float64, times a constant, with class 0 as -(sum of the others)."""
    log_others = z.double().log_softmax(1)[:, 1:]
    others = (log_others - log_others.detach().max()).exp()
    first = -others.sum(1, keepdim=True) if class_0 else torch.zeros_like(others[:, :1])
    return torch.cat((first, others), 1)


def u_centered(k: Tensor) -> Tensor:
    """Return the U-centered kernel matrix by the textbook."""
    n = len(k)
    k = k - k.diagonal().diag()
    total = k.sum() / ((n - 1) * (n - 2))
    u = k - (k.sum(1, keepdim=True) + k.sum(0)) / (n - 2) + total
    hollow: Tensor = u - u.diagonal().diag()
    return hollow


def unit_rows(x: Tensor) -> Tensor:
    """Return rows of length 1."""
    return torch.nn.functional.normalize(x, dim=1)


def kernel(x: Tensor, scale: str | None) -> Tensor:
    """Return the centered kernel matrix."""
    left = x if scale is None else unit_rows(x)
    right = left if scale == "cosine" else x
    return torch.mm(left - left.mean(0), (right - right.mean(0)).T)


def misaligned(k: Tensor, other: Tensor) -> Tensor:
    """Return 15 (1 - A) of two kernel matrices."""
    return 15 * (1 - torch.cosine_similarity(k.flatten(), other.flatten(), dim=0, eps=0.0))


def expected_intra(student: Tensor, teacher: Tensor, scale: str | None, debiased: bool) -> Tensor:
    if student.detach().softmax(1)[:, 0].mean() > 0.99:
        # Beside 1 the others are nothing: all items have length 1, to second order.
        x = without_the_one(student, class_0=scale is None)
        k = kernel(x, None)
    else:
        k = kernel(student.softmax(1), scale)
    other = kernel(teacher.double().softmax(1), scale)
    return misaligned(u_centered(k), u_centered(other)) if debiased else misaligned(k, other)


def check(found: Tensor, x: Tensor, expected: Tensor, z: Tensor, error: float = 1e-4) -> None:
    assert found.item() == pytest.approx(expected.item(), rel=error)
    slope = torch.autograd.grad(found, x)[0].double()
    expected_slope = torch.autograd.grad(expected, z)[0]
    assert (slope - expected_slope).norm() <= error * expected_slope.norm()


@pytest.fixture(params=["as on a CPU", "as on an accelerator"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let values decide how softened probabilities are formed, or not."""
    if request.param == "as on an accelerator":
        monkeypatch.setattr("tutelage.methods._probabilities.may_read", lambda x: False)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("margin", [0.0, 20.0, 30.0, 60.0, 150.0])
@pytest.mark.parametrize("scale", [None, "rows", "cosine"])
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rcka_between_items(margin: float, scale: Any, debiased: bool, dtype: torch.dtype) -> None:
    student, teacher = logits(margin)
    x, z = student.to(dtype).requires_grad_(), student.double().requires_grad_()
    terms = rcka_loss(
        x,
        teacher.to(dtype),
        inter_weight=None,
        soften="intra",
        center=True,
        scale=scale,
        estimator="debiased" if debiased else "biased",
        temperature=1.0,
    )
    check(terms["intra"], x, expected_intra(z, teacher, scale, debiased), z)


@pytest.mark.usefixtures("reading")
def test_rcka_with_an_exception() -> None:
    student, teacher = logits(25.0, exceptions=1)
    x, z = student.clone().requires_grad_(), student.double().requires_grad_()
    terms = rcka_loss(
        x,
        teacher,
        inter_weight=None,
        soften="intra",
        scale=None,
        estimator="debiased",
        temperature=1.0,
    )
    check(terms["intra"], x, expected_intra(z, teacher, None, True), z)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("margin", [10.0, 30.0, 60.0])
def test_debiased_rcka_between_classes(margin: float) -> None:
    student, teacher = logits(margin)
    x, z = student.clone().requires_grad_(), student.double().requires_grad_()
    terms = rcka_loss(
        x,
        teacher,
        intra_weight=None,
        soften="both",
        scale=None,
        estimator="debiased",
        temperature=1.0,
    )
    # The faint classes' kernels are so small that their diagonal hides them, uncentered too.
    p, q = z.softmax(1), teacher.double().softmax(1)
    k, other = u_centered(p.T @ p), u_centered(q.T @ q)
    k = k / k.detach().abs().max()
    check(terms["inter"], x, misaligned(k, other), z)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("scale", [None, "rows"])
def test_classes_that_no_item_is_given_to(scale: Any) -> None:
    student, teacher = 1e10 * torch.randn(2, 8, 6)
    student[:, 0] -= 1e11
    values = [
        rcka_loss(student.to(dtype), teacher.to(dtype), soften="both", scale=scale, center=center)
        for dtype in (torch.float32, torch.float64)
        for center in (False, True)
    ]
    for single, double in zip(values[:2], values[2:], strict=True):
        for name, term in single.items():
            assert term.item() == pytest.approx(double[name].item(), rel=1e-5, abs=1e-5)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("margin", [20.0, 30.0])
def test_dist_within_a_class(margin: float) -> None:
    student, teacher = logits(margin)
    x, z = student.clone().requires_grad_(), student.double().requires_grad_()
    found = dist_loss(x, teacher, beta=None, gamma=1.0, temperature=1.0)["intra"]
    others = z.softmax(1)[:, 1:]
    u = torch.cat((-others.sum(1, keepdim=True), others), 1)
    u, v = (each - each.mean(0) for each in (u, teacher.double().softmax(1)))
    correlation = (u * v).sum(0) / (u.norm(dim=0) * v.norm(dim=0) + 1e-8)
    check(found, x, 1 - correlation.mean(), z)
