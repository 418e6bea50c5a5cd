"""Sums of all pairs in both spaces: against the definition, against each other, canceled ones."""

from __future__ import annotations

import pytest
import torch

from tests.similarity.formulas import song
from tutelage.similarity._all_pairs import (
    Sums,
    feature_sums,
    features_are_cheaper,
    gram_sums,
    u_center_,
)
from tutelage.similarity._gram import u_centered
from tutelage.similarity._layer_gram import layer_grams

NONE = torch.empty(0, 40, dtype=torch.int64)


def layers(count: int, n: int = 40, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    base = torch.randn(n, 6, dtype=torch.float64)
    widths = (3, 5, 8, 4)
    return [
        (
            base @ torch.randn(6, widths[i % 4], dtype=torch.float64)
            + torch.randn(n, widths[i % 4])
        ).to(dtype)
        for i in range(count)
    ]


def by_definition(left: list[torch.Tensor], right: list[torch.Tensor]) -> torch.Tensor:
    n = len(left[0])
    return torch.stack(
        [torch.stack([song(x @ x.mT, y @ y.mT) * n * (n - 3) for y in right]) for x in left]
    )


def in_both_spaces(
    left: list[torch.Tensor], right: list[torch.Tensor] | None, orders: torch.Tensor
) -> tuple[Sums, Sums]:
    grams = gram_sums(layer_grams([*left, *(right or ())]), len(left), orders)
    features = feature_sums(left, right, orders)
    assert features is not None
    return grams, features


def test_both_spaces_give_the_sums_of_the_definition() -> None:
    left, right = layers(4), layers(3)
    for found in in_both_spaces(left, right, NONE):
        assert torch.allclose(found.xy, by_definition(left, right), rtol=1e-10)
        assert torch.allclose(found.xx, by_definition(left, left).diagonal(), rtol=1e-10)
        assert torch.allclose(found.yy, by_definition(right, right).diagonal(), rtol=1e-10)
        assert found.null.shape == (0, 4, 3)


def test_a_side_with_itself_shares_its_grams() -> None:
    left = layers(4)
    for found in in_both_spaces(left, None, NONE):
        assert torch.allclose(found.xy, by_definition(left, left), rtol=1e-10)
        assert torch.allclose(found.xx, found.xy.diagonal())
        assert torch.equal(found.xx, found.yy)


def test_permuted_sums_are_those_of_permuted_rows() -> None:
    left, right = layers(2), layers(3)
    orders = torch.stack([torch.randperm(40) for _ in range(3)])
    for found in in_both_spaces(left, right, orders):
        for order, null in zip(orders, found.null, strict=True):
            assert torch.allclose(
                null, by_definition(left, [y[order] for y in right]), rtol=1e-10, atol=1e-6
            )


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e6, 1e15])
@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_float32_features_are_within_a_millionth(scale: float, offset: float) -> None:
    exact = [x + offset for x in layers(4, 400)]
    left = [(x * scale).float() for x in exact]
    rounded = [x.double() / scale for x in left]  # offsets round the features themselves
    rounded = [x - x.mean(0) for x in rounded]  # the definition would lose the digits
    truth = by_definition(rounded, rounded)
    truth = truth / (truth.diagonal()[:, None] * truth.diagonal()).sqrt()
    for found in in_both_spaces(left, None, torch.empty(0, 400, dtype=torch.int64)):
        value = found.xy / (found.xx.sqrt()[:, None] * found.yy.sqrt())
        assert torch.allclose(value, truth, rtol=0, atol=1e-6)
        assert found.xx.log10().mean().item() == pytest.approx(
            (found.xx / scale**4).log10().mean().item()
            + 4 * torch.tensor(scale).double().log10().item()
        )


def test_a_mean_that_was_rounded_is_taken_off_again() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        base = torch.randn(12, 2)
        left = [base @ torch.randn(2, 2) + torch.randn(12, 2) + 1000 for _ in range(3)]
        none = torch.empty(0, 12, dtype=torch.int64)
        found, exact = (
            feature_sums(left, None, none),
            feature_sums([x.double() for x in left], None, none),
        )
        assert found is not None
        assert exact is not None
        values = [each.xy / (each.xx.sqrt()[:, None] * each.yy.sqrt()) for each in (found, exact)]
        assert torch.allclose(*values, rtol=0, atol=1e-6)


def test_constant_layers_add_zeros_in_both_spaces() -> None:
    left = [
        *layers(2),
        torch.full((40, 3), 0.1, dtype=torch.float64),
        torch.zeros(40, 2, dtype=torch.float64),
    ]
    for found in in_both_spaces(left, None, NONE):
        assert found.xx[2:].tolist() == [0.0, 0.0]
        assert not found.xy[2:].any()
        assert not found.xy[:, 2:].any()


def test_nan_stays_in_its_layer() -> None:
    left = layers(3)
    left[1][0, 0] = torch.nan
    for found in in_both_spaces(left, None, NONE):
        assert found.xx.isnan().tolist() == [False, True, False]


def test_canceled_sums_are_not_given() -> None:
    left = layers(3)
    left[1][0] += 1e6  # one far row: its squared length is nearly all of the norm
    assert feature_sums(left, None, NONE) is None
    left[1][0] = 0
    left[1][0] += 50  # too much for float32, not for float64
    single = feature_sums([x.float() for x in left], None, NONE)
    assert single is not None
    exact = gram_sums(layer_grams([x.float().double() for x in left]), len(left), NONE)
    assert torch.allclose(single.xy, exact.xy, rtol=1e-9)


def test_u_centering_in_place_is_u_centering() -> None:
    k = torch.stack([x @ x.mT for x in layers(3)])
    expected = u_centered(k)
    found = u_center_(k, torch.full((3,), 1e-16))
    assert found is k
    assert torch.allclose(found, expected, rtol=0, atol=1e-11)
    equal = torch.ones(1, 5, 5, dtype=torch.float64) + torch.eye(5)
    assert not u_center_(equal, torch.full((1,), 1e-16)).any()


def test_which_space_is_cheaper() -> None:
    assert features_are_cheaper(4096, [64], None)
    assert features_are_cheaper(512, [64] * 20, [64] * 20)
    assert not features_are_cheaper(64, [2048] * 20, None)
    assert not features_are_cheaper(2048, [2048] * 4, [2048] * 4)


def test_float32_layers_take_half_the_memory_and_lose_nothing() -> None:
    layers = [torch.randn(40, 300) + index for index in range(6)]
    single, double = layer_grams(layers), layer_grams([x.double() for x in layers])
    assert single.stack.dtype == torch.float32
    assert double.stack.dtype == torch.float64
    orders = torch.stack([torch.randperm(40)])
    found, expected = (gram_sums(grams, 3, orders) for grams in (single, double))
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == torch.float64
        assert torch.allclose(ours, exact, rtol=0, atol=1e-6 * float(expected.xx.max()))
