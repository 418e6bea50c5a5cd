"""Every option of the alignment against its definition.

Values, gradients, paths, scales, dead inputs, autocast.
"""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tests.similarity.formulas import aligned
from tutelage import UserError
from tutelage.similarity import alignment, alignment_pair
from tutelage.similarity._products import gram

MODULE = sys.modules[alignment.__module__]  # its name is that of the function
OPTIONS = [
    {"center": center, "scale": scale, "estimator": estimator}
    for center, scale, estimator in itertools.product(
        (False, True), (None, "rows", "cosine"), ("biased", "debiased")
    )
]
SHAPES = {"gram": (7, 30, 40), "features": (40, 3, 5)}  # n, p, q: which space is the cheaper one


def name_of(options: dict[str, object]) -> str:
    return "-".join(str(value) for value in options.values())


def sides(n: int, p: int, q: int, offset: float = 0.5) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, p, dtype=torch.float64) + offset
    mixed = x[:, : min(p, q)] @ torch.randn(min(p, q), q, dtype=torch.float64)
    return x, mixed + torch.randn(n, q, dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_value_and_gradients_are_those_of_the_definition(
    options: dict, shape: tuple[int, int, int]
) -> None:
    x, y = (side.requires_grad_() for side in sides(*shape))
    found, expected = alignment(x, y, **options), aligned(x, y, **options)
    assert torch.isclose(found, expected, rtol=0, atol=1e-12)
    for mine, true in zip(
        torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True
    ):
        assert torch.allclose(mine, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 6, 4), (2, 3, 4, 6)], ids=str)
def test_the_pair_relates_rows_and_columns_of_every_matrix(
    options: dict, shape: tuple[int, ...]
) -> None:
    x, y = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    intra, inter = alignment_pair(x, y, **options)
    assert intra.shape == inter.shape == shape[:-2]
    flat = [
        (a, b) for a, b in zip(x.reshape(-1, *shape[-2:]), y.reshape(-1, *shape[-2:]), strict=True)
    ]
    rows = torch.stack([aligned(a, b, **options) for a, b in flat])
    columns = torch.stack([aligned(a.mT, b.mT, **options) for a, b in flat])
    assert torch.allclose(intra.flatten(), rows, rtol=0, atol=1e-12)
    assert torch.allclose(inter.flatten(), columns, rtol=0, atol=1e-12)
    weights = torch.randn(2, len(rows), dtype=torch.float64)
    mine = torch.autograd.grad(
        (torch.stack([intra.flatten(), inter.flatten()]) * weights).sum(), (x, y)
    )
    true = torch.autograd.grad((torch.stack([rows, columns]) * weights).sum(), (x, y))
    for a, b in zip(mine, true, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_leading_dimensions_are_batched(options: dict) -> None:
    x, y = (
        torch.randn(2, 3, 6, 5, dtype=torch.float64),
        torch.randn(2, 3, 6, 9, dtype=torch.float64),
    )
    found = alignment(x, y, **options)
    each = [aligned(a, b, **options) for a, b in zip(x.view(6, 6, 5), y.view(6, 6, 9), strict=True)]
    assert torch.allclose(found.flatten(), torch.stack(each), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_gram_and_feature_space_agree(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sides(12, 8, 9)
    values = []
    for space in (True, False):
        monkeypatch.setattr(MODULE, "gram_is_cheaper", lambda *_, space=space: space)
        leaf = x.clone().requires_grad_()
        value = alignment(leaf, y, **options)
        values.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for one, two in zip(*values, strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_gradcheck(options: dict) -> None:
    x, y = (side.requires_grad_() for side in sides(6, 3, 4))
    assert torch.autograd.gradcheck(lambda a, b: alignment(a, b, **options), (x, y))


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_only_the_side_that_asks_gets_a_gradient(options: dict) -> None:
    x, y = sides(8, 5, 5)
    y.requires_grad_()
    alone = torch.autograd.grad(alignment(x, y, **options), y)[0]
    together = torch.autograd.grad(alignment(x.clone().requires_grad_(), y, **options), y)[0]
    assert torch.allclose(alone, together, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", cases("cka_measures"))
def test_reference_values(name: str) -> None:
    x, y = (tensor("cka_measures", f"{name}_{side}") for side in "xy")
    for options, key in (
        ({}, "kernel_alignment_uncentred"),
        ({"center": True}, "cka_biased"),
        ({"estimator": "debiased"}, "cka_debiased"),
    ):
        expected = tensor("cka_measures", f"{name}_{key}")
        assert torch.isclose(alignment(x, y, **options), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-12, -6, 6])
def test_one_scale_of_the_features_changes_nothing(
    options: dict, shape: tuple[int, int, int], dtype: torch.dtype, power: int
) -> None:
    x, y = sides(*shape)
    y = y.to(dtype)
    expected = alignment(x.to(dtype), y, **options)
    scaled = (x * 10.0**power).to(dtype).requires_grad_()
    found = alignment(scaled, y, **options)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.isclose(found, expected, rtol=0, atol=tolerance)
    reference = x.to(dtype).requires_grad_()
    slope = torch.autograd.grad(alignment(reference, y, **options), reference)[0]
    mine = torch.autograd.grad(found, scaled)[0] * 10.0**power
    assert torch.allclose(mine, slope, rtol=0, atol=tolerance * slope.abs().max().clamp_min(1))


DEAD = {
    "zero": lambda x: torch.zeros_like(x),
    "constant": lambda x: torch.full_like(x, 0.1),
    "one zero row": lambda x: x.index_fill(0, torch.tensor([2]), 0.0),
}


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dead", DEAD)
def test_dead_inputs_give_finite_values_and_gradients(
    options: dict, shape: tuple[int, int, int], dead: str
) -> None:
    x, y = (side.float() for side in sides(*shape))
    for left, right in ((DEAD[dead](x), y), (x, DEAD[dead](y)), (DEAD[dead](x), DEAD[dead](y))):
        leaves = left.requires_grad_(), right.requires_grad_()
        value = alignment(*leaves, **options)
        assert torch.isfinite(value)
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(value, leaves))
        centered_out = options["center"] or options["estimator"] == "debiased"
        if dead == "zero" or (dead == "constant" and centered_out):
            assert value.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_is_left_and_half_precision_promoted(options: dict, dtype: torch.dtype) -> None:
    x, y = (side.to(dtype) for side in sides(16, 8, 8))
    expected = aligned(x.double(), y.double(), **options)
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = alignment(leaf, y, **options)
        pair = alignment_pair(leaf, y, **options)
    assert found.dtype == pair[0].dtype == torch.float32
    assert torch.isclose(found.double(), expected, rtol=0, atol=1e-6)
    assert torch.isclose(pair[0].double(), expected, rtol=0, atol=1e-6)
    found.backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype
    assert leaf.grad.isfinite().all()


def test_mixed_precision_takes_the_wider() -> None:
    x, y = torch.randn(8, 3), torch.randn(8, 4, dtype=torch.float64)
    assert alignment(x, y).dtype == torch.float64


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_nan_out(bad: float) -> None:
    x, y = torch.randn(8, 3), torch.randn(8, 4)
    x[0, 0] = bad
    assert alignment(x, y).isnan()
    assert alignment(x, y, center=True).isnan()


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (
            torch.zeros(8, 5),
            torch.zeros(7, 5),
            {},
            r"of the same N items, got shapes \(8, 5\) and \(7, 5\)",
        ),
        (torch.zeros(8), torch.zeros(8), {}, "flattened to one row per item"),
        (torch.zeros(1, 5), torch.zeros(1, 5), {}, "biased alignment needs at least 2 rows"),
        (
            torch.zeros(3, 5),
            torch.zeros(3, 5),
            {"estimator": "debiased"},
            "debiased alignment needs at least 4 rows",
        ),
        (
            torch.zeros(8, 5).long(),
            torch.zeros(8, 5),
            {},
            "needs floating-point inputs, got torch.int64",
        ),
        (torch.zeros(8, 5), torch.zeros(8, 5), {"scale": "columns"}, "alignment knows scale in"),
        (
            torch.zeros(8, 5),
            torch.zeros(8, 5),
            {"estimator": "unbiased"},
            "alignment knows scale in",
        ),
    ],
)
def test_what_does_not_fit_is_named(x: Tensor, y: Tensor, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        alignment(x, y, **options)


def test_the_pair_needs_equal_columns() -> None:
    with pytest.raises(UserError, match="the inter alignment needs the same columns on both sides"):
        alignment_pair(torch.zeros(8, 5), torch.zeros(8, 6))


def test_the_pair_of_every_option_is_two_alignments() -> None:
    x, y = torch.randn(2, 8, 5)
    intra, inter = alignment_pair(x, y, center=True, scale="cosine", estimator="debiased")
    assert torch.equal(intra, alignment(x, y, center=True, scale="cosine", estimator="debiased"))
    assert torch.equal(inter, alignment(x.mT, y.mT, scale="cosine", estimator="debiased"))


def test_a_gram_in_a_graph_has_the_gradient_of_a_plain_product() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 5, 5, dtype=torch.float64)
    mine = torch.autograd.grad((gram(x) * weight).sum(), x)[0]
    true = torch.autograd.grad((x @ x.mT * weight).sum(), x)[0]
    assert torch.allclose(mine, true, rtol=0, atol=1e-12)
