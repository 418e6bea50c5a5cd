"""The small operations against their formulas, and the habits that keep them right."""

from __future__ import annotations

import pytest
import torch

from tests.similarity.formulas import centering, song, u_centering
from tutelage.core.precision import full_precision, promote
from tutelage.similarity._gram import (
    centered,
    dot,
    factor,
    gram,
    gram_is_cheaper,
    h_centered,
    inverse,
    kernel_dot,
    norm,
    product,
    u_centered,
    unit_rows,
)


def draws(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_u_centered_kernels_give_the_unbiased_hsic() -> None:
    x, y = draws(9, 4), draws(9, 6)
    k, l = (centering(gram(side)) for side in (x, y))  # noqa: E741
    n = len(k)
    assert torch.allclose(u_centered(k), u_centering(k), atol=1e-12)
    assert torch.isclose(
        dot(u_centered(k), u_centered(l)) / (n * (n - 3)), song(gram(x), gram(y)), atol=1e-12
    )
    assert u_centered(k).sum(0).abs().max() < 1e-12
    assert u_centered(k).diagonal().abs().max() == 0


def test_u_centering_and_centering_work_on_stacks() -> None:
    k = torch.stack([centering(gram(draws(6, 3))) for _ in range(4)]).view(2, 2, 6, 6)
    for center, formula in ((u_centered, u_centering), (h_centered, centering)):
        each = torch.stack([formula(one) for one in k.view(4, 6, 6)]).view_as(k)
        assert torch.allclose(center(k), each, atol=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
def test_the_product_of_kernels_needs_no_gram(debiased: bool) -> None:
    x, y = centered(draws(30, 4)), centered(draws(30, 5))
    k, l = product(x, x), product(y, y)  # noqa: E741
    if debiased:
        k, l = u_centered(k), u_centered(l)  # noqa: E741
    assert torch.isclose(
        kernel_dot((x, x), (y, y), debiased).value.squeeze(), dot(k, l), rtol=0, atol=1e-13
    )


def test_two_different_factors_of_one_kernel() -> None:
    x, y = draws(30, 4), draws(30, 5)
    one, two = (centered(unit_rows(x)), centered(x)), (centered(unit_rows(y)), centered(y))
    for debiased in (False, True):
        k, l = product(*one), product(*two)  # noqa: E741
        if debiased:
            k, l = u_centered(k), u_centered(l)  # noqa: E741
        assert torch.isclose(
            kernel_dot(one, two, debiased).value.squeeze(), dot(k, l), rtol=0, atol=1e-13
        )


def test_sizes_are_divided_out() -> None:
    for scale in (1e-15, 1.0, 1e15):
        x = (draws(8, 3) * scale).float()
        assert dot(product(factor(x), factor(x)), product(factor(x), factor(x))).item() <= 1 + 1e-5
        assert product(centered(x), centered(x)).trace().item() == pytest.approx(1, abs=1e-5)


def test_rounding_noise_counts_as_constant() -> None:
    assert centered(torch.full((64, 3), 1000.1)).unit.item() == 0
    assert centered(torch.zeros(4, 3)).unit.item() == 0
    assert centered(1000 + torch.randn(64, 3)).unit.item() > 0
    assert not u_centered(torch.eye(6) + 0.1 / 3).any()  # all similarities equal


def test_zero_has_an_inverse_of_zero_and_no_gradient() -> None:
    size = torch.tensor([0.0, 2.0, float("nan")], requires_grad=True)
    value = inverse(size)
    assert value[:2].tolist() == [0.0, 0.5]
    assert value[2].isnan()
    assert torch.autograd.grad(value[:2].sum(), size)[0][:2].tolist() == [0.0, -0.25]


def test_norms_and_products_of_stacks_are_per_matrix() -> None:
    a, b = draws(3, 4, 5), draws(3, 4, 5)
    assert torch.allclose(dot(a, b).flatten(), (a * b).sum((1, 2)))
    assert torch.allclose(norm(a).flatten(), a.square().sum((1, 2)).sqrt())
    assert torch.isclose(dot(a[0], b[0]), (a[0] * b[0]).sum())
    assert torch.isclose(norm(a[0]), a[0].square().sum().sqrt())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unit_rows_neither_overflow_nor_vanish(scale: float) -> None:
    x = (torch.randn(5, 4) * scale).requires_grad_()
    rows = unit_rows(x)
    assert torch.allclose(rows.norm(dim=1), torch.ones(5))
    rows[:, 0].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_gradients_of_the_operations() -> None:
    x = draws(6, 3).requires_grad_()
    for function in (
        gram,
        lambda a: product(centered(a), centered(a)),
        lambda a: u_centered(product(centered(a), centered(a))),
        lambda a: h_centered(gram(a)),
        unit_rows,
        lambda a: norm(gram(a)),
    ):
        weight = torch.randn_like(function(x))

        def scalar(a: torch.Tensor, function=function, weight=weight) -> torch.Tensor:
            return (function(a) * weight).sum()

        if function in (gram, unit_rows) or function(x).ndim == 0:
            assert torch.autograd.gradcheck(scalar, x)
        else:
            # The detached size makes a single product's gradient partial; ratios of them are
            # tested elsewhere.
            assert torch.autograd.grad(scalar(x), x)[0].isfinite().all()


def test_vmap_goes_through_a_gram_in_a_graph() -> None:
    x = draws(3, 5, 2).requires_grad_()
    assert torch.allclose(torch.vmap(gram)(x), x @ x.mT)


def test_autocast_is_left_only_inside() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(torch.device("cpu")):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert promote(torch.ones(1).half()).dtype == torch.float32


def test_which_space_is_cheaper() -> None:
    for d in (64, 512):
        assert gram_is_cheaper(int(1.4 * d), (d, d))
        assert not gram_is_cheaper(int(1.6 * d), (d, d))
        assert gram_is_cheaper(int(2.9 * d), (d, d), scaled=True)
