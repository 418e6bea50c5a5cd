"""Features that are hard in float32: far rows, constant columns, and lengths of 40 magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tutelage import UserError
from tutelage.methods import ckd_loss, kd_loss, rcka_loss
from tutelage.similarity import CKAMatrix, alignment, alignment_pair, cka, gram_of, hsic
from tutelage.similarity._gram import centered
from tutelage.similarity._products import matmul

Loss = Callable[[Tensor, Tensor], Tensor]


def value_and_gradients(x: Tensor, y: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return the values of `alignment_pair` with scaled rows and the gradients for both sides."""
    leaves = [side.to(dtype).requires_grad_() for side in (x, y)]
    values = alignment_pair(*leaves, scale="rows")
    gradients = torch.autograd.grad((values[0] + 2 * values[1]).sum(), leaves)
    return [tensor.detach().double() for tensor in (*values, *gradients)]


# ---- rows and columns of no length beside others ----


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (3, 12, 8)], ids=str)
@pytest.mark.parametrize("size", [1e-3, 1e-12, 1e-15, 1e-20, 1e-30])
@pytest.mark.parametrize("what", ["row", "column", "row and column", "two rows"])
def test_short_rows_and_columns_have_the_gradient_of_float64(
    shape: tuple[int, ...], size: float, what: str
) -> None:
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    if "row" in what:
        y[..., 0, :] *= size
    if "column" in what:
        y[..., :, 1] *= size
    if "two" in what:
        y[..., 2, :] *= size
        x[..., 3, :] *= size
    # Rounded once, so that both precisions see the same numbers.
    x, y = x.float().double(), y.float().double()
    for found, expected in zip(
        value_and_gradients(x, y, torch.float32),
        value_and_gradients(x, y, torch.float64),
        strict=True,
    ):
        # Beside the other entries of the row, or of the column: those of a short one are huge.
        size_of = expected.abs()
        if expected.ndim == len(shape):
            if what == "row and column" and size < 1e-20:  # see _lift.py
                found[..., 0, 1] = expected[..., 0, 1]
            size_of = size_of.amax(-2 if what == "column" else -1, keepdim=True)
        assert bool(((found - expected).abs() <= 1e-5 * size_of + 2e-6).all())


@pytest.mark.parametrize("gap", [20.0, 50.0, 90.0, 400.0])
@pytest.mark.parametrize("shape", [(32, 10), (6, 10)], ids=str)
@pytest.mark.parametrize("soften", ["both", "intra"])
def test_a_class_far_below_the_others(gap: float, shape: tuple[int, int], soften: str) -> None:
    teacher, student = torch.randn(2, *shape)
    student[:, 9] -= gap
    teacher[:, 3] -= gap
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = student.to(dtype).requires_grad_()
        terms = rcka_loss(leaf, teacher.to(dtype), soften=soften, temperature=1.0)
        total = terms["intra"] + terms["inter"]
        found.append((total.detach().double(), torch.autograd.grad(total, leaf)[0].double()))
    assert torch.isclose(found[0][0], found[1][0], rtol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


def test_zero_rows_beside_short_ones_still_contribute_nothing() -> None:
    x, y = torch.randn(2, 8, 5)
    y[0] = 0.0
    y[1] *= 1e-25
    y.requires_grad_()
    value = alignment(x, y, scale="rows")
    gradient = torch.autograd.grad(value, y)[0]
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [1e-10, 1e-16, 1e-18, 1e-19, 1e-20, 1e-22, 1e-30])
@pytest.mark.parametrize("shape", [(6, 4), (6, 30)], ids=str)
def test_the_debiased_alignment_of_tiny_features_is_right_or_zero(
    shape: tuple[int, int], size: float
) -> None:
    x, y = torch.randn(shape), torch.randn(6, 5)
    expected = alignment(x, y, estimator="debiased").item()
    leaf = (x * size).requires_grad_()
    value = alignment(leaf, y, estimator="debiased")
    counts = 0.0 if size < 1e-18 else 1.0
    assert value.item() == pytest.approx(counts * expected, abs=1e-6)
    assert torch.autograd.grad(value, leaf)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_and_columns_of_zeros_may_meet(dtype: torch.dtype) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(4, 4, generator=generator, dtype=dtype, requires_grad=True)
        y = (torch.randn(4, 4, generator=generator) > 1.5).to(dtype)
        y[0, 1] = 1.0
        y[2] = 0.0
        y[:, 3] = 0.0
        values = alignment_pair(x, y, scale="rows")
        expected = alignment(x, y, scale="rows"), alignment(x.mT, y.mT, scale="rows")
        for value, other in zip(values, expected, strict=True):
            assert 0 < value.item() == pytest.approx(other.item(), abs=1e-6)
        assert torch.autograd.grad(values[0] + values[1], x)[0].isfinite().all()


def test_denormal_numbers_count_as_zero() -> None:
    x, y = torch.randn(2, 8, 5)
    for scale in ("rows", "cosine"):
        assert alignment(x, y * 1e-40, scale=scale).item() == 0.0


# ---- far rows ----


@pytest.mark.parametrize("scale", [1e1, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("shape", [(200, 4, 5), (40, 60, 70), (2, 200, 4, 5)], ids=str)
def test_the_debiased_alignment_of_a_far_row_is_the_cka(
    scale: float, shape: tuple[int, ...]
) -> None:
    *leading, n, p, q = shape
    x = torch.randn(*leading, n, p)
    y = x @ torch.randn(p, q) / p**0.5 + torch.randn(*leading, n, q)
    x[..., 0, :] *= scale
    y[..., 0, :] *= scale
    found = alignment(x, y, estimator="debiased")
    pairs = zip(x.reshape(-1, n, p), y.reshape(-1, n, q), strict=True)
    expected = torch.stack([cka(a, b) for a, b in pairs])
    assert torch.allclose(found.flatten().double(), expected, rtol=0, atol=1e-4)
    leaf = y.clone().requires_grad_()
    gradient = torch.autograd.grad(alignment(x, leaf, estimator="debiased").sum(), leaf)[0]
    assert gradient.isfinite().all()


def test_items_far_apart_need_no_kernel_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(120, 3, dtype=torch.float64)
    y = torch.randn(120, 4, dtype=torch.float64) + x[:, :1]
    x[0] *= 1e6
    found = []
    for limit in (2**22, 500):
        monkeypatch.setattr("tutelage.similarity._u_products.MAX_DENSE", limit)
        leaf = x.clone().requires_grad_()
        value = cka(leaf, y)
        found.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    assert torch.isclose(found[0][0], found[1][0], rtol=0, atol=1e-9)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-6, atol=1e-9)


def test_a_constant_side_of_many_items_is_cheap() -> None:
    x, y = torch.randn(40_000, 2), torch.ones(40_000, 2)
    with pytest.warns(UserWarning, match="in y"):
        assert cka(x, y).isnan()  # an n × n kernel would be 12 GB
    assert hsic(x, y) == 0
    assert alignment(x, y, estimator="debiased") == 0


# ---- constant columns ----


@pytest.mark.parametrize("offset", [1e5, 1e7, 1e9])
@pytest.mark.parametrize("shape", [(64, 10), (10, 64)], ids=str)
def test_a_constant_column_says_nothing(offset: float, shape: tuple[int, int]) -> None:
    x = torch.randn(shape)
    y = x + torch.randn(shape)
    far = x.clone()
    far[:, 0] = offset
    rest = x[:, 1:]
    for estimator in ("biased", "debiased"):
        expected = cka(rest, y, estimator=estimator).item()
        assert cka(far, y, estimator=estimator).item() == pytest.approx(expected, abs=1e-6)
        found = alignment(far, y, center=True, estimator=estimator).item()
        assert found == pytest.approx(expected, abs=1e-4)
    matrix = CKAMatrix(["far", "rest"])
    matrix.update([far, rest])
    assert matrix.compute().value[0, 1].item() == pytest.approx(1.0, abs=1e-5)
    grams = CKAMatrix(["far", "rest"])
    grams.update_grams([gram_of(far), gram_of(rest)])
    assert grams.compute().value[0, 1].item() == pytest.approx(1.0, abs=1e-5)


def test_only_the_columns_that_are_rounding_are_left_out() -> None:
    x = torch.randn(32, 3)
    x[:, 0] = 1e7
    data, unit = centered(x)
    assert bool((data[:, 0] == 0).all())
    assert unit.item() == pytest.approx(1 / centered(x[:, 1:]).data.norm().item(), rel=1e-4)


# ---- gradients: in autocast, and of gradients ----

LOSSES: dict[str, Loss] = {
    "ckd": lambda s, t: ckd_loss(student=s, teacher=t),
    "kd": lambda s, t: kd_loss(s, t),
    "plain": lambda s, t: alignment(t, s),
    "centered rows": lambda s, t: alignment(t, s, center=True, scale="rows"),
    "debiased cosine": lambda s, t: alignment(t, s, estimator="debiased", scale="cosine"),
    "debiased narrow": lambda s, t: alignment(t[:, :2], s[:, :3], estimator="debiased"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_backward_inside_autocast_is_backward_outside(loss: Loss) -> None:
    student, teacher = torch.randn(12, 6, requires_grad=True), torch.randn(12, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = torch.autograd.grad(loss(student, teacher), student)[0]
        value = loss(student, teacher)
    assert torch.equal(inside, torch.autograd.grad(value, student)[0])


def test_a_second_derivative_is_right_or_an_error() -> None:
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(8, 5, dtype=torch.float64)
    for scale in (None, "rows"):
        for first, second in ((x, y), (y, x)):
            value = sum(alignment_pair(first, second, scale=scale))
            gradient = torch.autograd.grad(value, x, create_graph=True)[0]
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                torch.autograd.grad(gradient.sum(), x, retain_graph=True)
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                gradient.square().sum().backward()
    assert torch.autograd.gradgradcheck(lambda a: alignment(a, y, estimator="debiased"), x)
    other = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(matmul, (x, other))


# ---- arguments ----


@pytest.mark.parametrize("wrong", [[1.0], None, torch.ones(3, 2).numpy(), "x"], ids=str)
@pytest.mark.parametrize("function", [alignment, alignment_pair, cka, hsic])
def test_what_is_no_tensor_is_a_sentence(function: Loss, wrong: Tensor) -> None:
    with pytest.raises(UserError, match="takes tensors, got a"):
        function(wrong, torch.ones(8, 2))
