"""The accumulator: streaming is one-shot, order does not matter, nothing is lost in silence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.vectors import tensor
from tests.similarity.formulas import song
from tutelage import UserError
from tutelage.similarity import CKAMatrix, SimilarityWarning, cka, gram_of

LEFT, RIGHT = ["conv", "stage1", "head"], ["stem", "head"]


def features(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    base = draw(n, 8)
    left = {
        "conv": (base @ draw(8, 48)).view(n, 3, 4, 4),
        "stage1": base + draw(n, 8),
        "head": draw(n, 5),
    }
    right = {"stem": base @ draw(8, 30) + draw(n, 30), "head": left["head"] + 0.5 * draw(n, 5)}
    return {k: v.to(dtype) for k, v in left.items()}, {k: v.to(dtype) for k, v in right.items()}


def rows(layers: dict, of: slice) -> dict:
    return {name: x[of] for name, x in layers.items()}


def cuts(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


def fed(left: dict, right: dict, batches: list[slice], **options: int) -> CKAMatrix:
    matrix = CKAMatrix(LEFT, RIGHT, **options)
    for batch in batches:
        matrix.update(rows(left, batch), rows(right, batch))
    return matrix


def test_one_batch_is_cka() -> None:
    left, right = features(40)
    found = fed(left, right, [slice(None)]).compute()
    for i, a in enumerate(LEFT):
        for j, b in enumerate(RIGHT):
            assert torch.isclose(found.value[i, j], cka(left[a], right[b]), rtol=0, atol=1e-12)
    assert (found.left, found.right) == (tuple(LEFT), tuple(RIGHT))
    assert (found.samples, found.batches, found.skipped, found.degenerate, found.ids) == (
        40,
        1,
        0,
        (),
        None,
    )
    assert found.sd.isnan().all()
    assert found.p_value is None


@pytest.mark.parametrize("reference", ["cka_measures", "case15", "case16"])
def test_official_minibatch_values(reference: str) -> None:
    if reference == "cka_measures":
        x, y = tensor(reference, "mb_x"), tensor(reference, "mb_y")
        matrix = CKAMatrix(["x"], ["y"])
        for batch in cuts(64, 16):
            matrix.update([x[batch]], [y[batch]])
        assert matrix.compute().value.item() == pytest.approx(
            tensor(reference, "mb_cka").item(), abs=1e-10
        )
        return
    count = 3 if reference == "case15" else 4
    layers = [tensor("cka_reliability", f"{reference}_act{index}") for index in range(count)]
    matrix = CKAMatrix([f"act{index}" for index in range(count)])
    for batch in zip(*layers, strict=True):
        matrix.update(batch)
    expected = tensor("cka_reliability", f"{reference}_map_aggregated_unbiased")
    assert torch.allclose(matrix.compute().value, expected, rtol=0, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_streaming_is_one_ratio_of_weighted_sums(sizes: list[int], seed: int) -> None:
    if max(sizes) < 4:
        return
    left, right = features(sum(sizes), seed)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    batches = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    found = fed(left, right, batches).compute()
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        x, y = (side[batch].flatten(1) for side in (left["conv"], right["stem"]))
        n = len(x)
        if n >= 4:
            k, l = x @ x.mT, y @ y.mT  # noqa: E741
            sums += n * (n - 3) * torch.stack([song(k, l), song(k, k), song(l, l)])
    assert found.value[0, 0].item() == pytest.approx(
        (sums[0] / (sums[1] * sums[2]).sqrt()).item(), abs=1e-10
    )
    assert found.skipped == sum(size < 4 for size in sizes)
    assert found.skipped_samples == sum(size for size in sizes if size < 4)
    assert found.samples == sum(size for size in sizes if size >= 4)


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_the_last_batch_may_be_of_any_length(last: int) -> None:
    left, right = features(64 + last)
    found = fed(left, right, cuts(64 + last, 64)).compute()
    assert (found.batches, found.skipped) == ((1, 1) if last < 4 else (2, 0))
    assert found.value.isfinite().all()
    if last < 4:
        assert torch.equal(found.value, fed(left, right, [slice(0, 64)]).compute().value)


def test_short_batches_weigh_little() -> None:
    spread = {}
    for size in (129, 4):  # four batches of 129, or eight of 64 and one of 4
        values = []
        for seed in range(16):
            left, right = features(516, seed)
            order = torch.randperm(516)
            left, right = ({name: x[order] for name, x in side.items()} for side in (left, right))
            batches = cuts(516, 129) if size == 129 else cuts(516, 64)
            whole = fed(left, right, [slice(None)]).compute().value
            values.append(fed(left, right, batches).compute().value - whole)
        spread[size] = torch.stack(values).std(0).max().item()
    assert spread[4] < 2.5 * spread[129]


def test_batch_size_does_not_bias_the_expectation() -> None:
    values = {size: [] for size in (4, 16, 64)}
    for seed in range(20):
        left, right = features(256, seed)
        whole = fed(left, right, [slice(None)]).compute().value
        for size, found in values.items():
            found.append(fed(left, right, cuts(256, size)).compute().value - whole)
    for size, found in values.items():
        gaps = torch.stack(found)
        assert (gaps.mean(0).abs() < 4 * gaps.std(0) / 20**0.5 + 1e-3).all(), size


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(5)), st.permutations(range(5)))
def test_merging_is_adding_in_any_order(first: list[int], second: list[int]) -> None:
    left, right = features(80)
    batches = cuts(80, 16)
    straight = fed(left, right, batches).compute()
    parts = [fed(left, right, [batch]) for batch in batches]
    results = []
    for order in (first, second):
        total = CKAMatrix(LEFT, RIGHT)
        for index in order:
            total.merge(parts[index])
        results.append(total.compute())
    for found in results:
        for name in ("value", "sd", "low", "high"):
            assert torch.allclose(vars(found)[name], vars(straight)[name], rtol=0, atol=1e-12), name
        assert (found.samples, found.batches) == (80, 5)


def test_merging_more_batches_than_groups() -> None:
    left, right = features(400)
    batches = cuts(400, 8)
    whole = fed(left, right, batches, permutations=3)
    one, two = (
        fed(left, right, batches[:37], permutations=3),
        CKAMatrix(LEFT, RIGHT, permutations=3),
    )
    two.state.counts.batches = 37  # so that it draws the permutations of the batches that follow
    for batch in batches[37:]:
        two.update(rows(left, batch), rows(right, batch))
    two.state.xy, two.state.xx, two.state.yy = (
        value.roll(-37, 0) for value in (two.state.xy, two.state.xx, two.state.yy)
    )
    two.state.counts.batches = 13
    one.merge(two)
    for name, value in whole.state.tensors().items():
        assert torch.allclose(value, one.state.tensors()[name], rtol=1e-12), name


def test_computing_changes_nothing_and_more_may_follow() -> None:
    left, right = features(64)
    matrix = fed(left, right, cuts(32, 16))
    once, twice = matrix.compute(), matrix.compute()
    assert torch.equal(once.value, twice.value)
    for batch in cuts(64, 16)[2:]:
        matrix.update(rows(left, batch), rows(right, batch))
    assert torch.equal(matrix.compute().value, fed(left, right, cuts(64, 16)).compute().value)
    assert repr(matrix) == "CKAMatrix(3 × 2 layers, 64 samples in 4 batches)"


def test_grams_are_as_good_as_features() -> None:
    left, right = features(60, dtype=torch.float32)
    by_features, by_grams = fed(left, right, cuts(60, 20)), CKAMatrix(LEFT, RIGHT)
    for batch in cuts(60, 20):
        one, two = (
            {name: gram_of(x) for name, x in rows(side, batch).items()} for side in (left, right)
        )
        by_grams.update_grams(one, two)
    assert torch.allclose(by_features.compute().value, by_grams.compute().value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [20, 300])  # Gram space and feature space
def test_a_self_comparison_has_a_diagonal_of_one_that_is_computed(n: int) -> None:
    left, _ = features(3 * n)
    alone, both = CKAMatrix(LEFT), CKAMatrix(LEFT, LEFT)
    for batch in cuts(3 * n, n):
        alone.update(rows(left, batch))
        both.update(rows(left, batch), rows(left, batch))
    found = alone.compute()
    assert torch.allclose(
        found.value.diagonal(), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert torch.allclose(found.value, both.compute().value, rtol=0, atol=1e-12)
    assert found.right == tuple(LEFT)
    alone.state.xx *= 4
    assert torch.allclose(
        alone.compute().value.diagonal(), torch.full((3,), 0.5, dtype=torch.float64)
    )


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_scales_and_offsets(scale: float, offset: float) -> None:
    left, right = features(64)
    expected = fed(left, right, cuts(64, 16)).compute().value
    moved = {name: ((x + offset) * scale).float() for name, x in left.items()}
    found = fed(moved, {name: x.float() for name, x in right.items()}, cuts(64, 16)).compute().value
    assert torch.allclose(
        found, expected, rtol=0, atol=1e-6 if offset == 0 else 1e-4
    )  # the offset rounds features
    self = CKAMatrix(LEFT)
    self.update(moved)
    assert torch.allclose(
        self.compute().value.diagonal(), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("n", [20, 300])
def test_degenerate_layers_are_nan_and_named(n: int) -> None:
    left, right = features(n)
    left["stage1"] = torch.full_like(left["stage1"], 0.1)
    right["head"] = torch.zeros_like(right["head"])
    matrix = fed(left, right, [slice(None)], permutations=4)
    with pytest.warns(SimilarityWarning, match="left: stage1, right: head$"):
        found = matrix.compute()
    assert found.degenerate == ("left: stage1", "right: head")
    assert found.p_value is not None
    for values in (found.value, found.p_value):
        assert values.isnan().tolist() == [[False, True], [True, True], [False, True]]
    matrix.update(*features(n, 1))  # it varies in the next batch
    assert matrix.compute().degenerate == ()


def test_ids_are_hashed_in_any_order_and_compared_in_theirs() -> None:
    left, right = features(32)
    names = [f"image{index}" for index in range(32)]
    forwards, backwards = CKAMatrix(LEFT, RIGHT), CKAMatrix(LEFT, RIGHT)
    for batch in cuts(32, 8):
        forwards.update(rows(left, batch), rows(right, batch), names[batch], list(names[batch]))
    for batch in reversed(cuts(32, 16)):
        backwards.update(rows(left, batch), rows(right, batch), names[batch])
    assert forwards.compute().ids == backwards.compute().ids is not None
    backwards.update(left, right, torch.arange(32))
    assert backwards.compute().ids not in (None, forwards.compute().ids)
    forwards.update(left, right)
    assert forwards.compute().ids is None
    before = backwards.compute().value
    with pytest.raises(UserError, match="the two sides saw different items, or in another order"):
        backwards.update(left, right, names, names[::-1])
    with pytest.raises(UserError, match="there are 31 ids for 32 items"):
        backwards.update(left, right, names[1:])
    assert torch.equal(backwards.compute().value, before)


def test_bad_batches_are_named_and_leave_the_state_alone() -> None:
    left, right = features(16)
    matrix = fed(left, right, [slice(None)])
    before = matrix.compute().value
    short = {**right, "head": right["head"][:12]}
    nan = {**left, "stage1": left["stage1"].clone().index_fill(0, torch.tensor([3]), torch.nan)}
    cases = [
        (
            (left, short),
            "right layer 'head' has 12 rows, left layer 'conv' 16; "
            "all layers must see the same items",
        ),
        ((nan, right), "left layer 'stage1' holds NaN or infinity in batch 1"),
        (({**left, "head": left["head"][:, 0]}, right), r"left layer 'head' has shape \(16,\)"),
        (({**left, "head": left["head"].long()}, right), "left layer 'head' is of torch.int64"),
        (
            ({"conv": left["conv"], "stage": left["stage1"]}, right),
            r"'stage1' is missing.*did you mean \['stage'\]",
        ),
        ((list(left.values())[:2], right), "there are 3 left layers, but the batch holds 2"),
        ((left, None), "this accumulator has right layers; give their batch too"),
    ]
    for (one, two), message in cases:
        with pytest.raises(UserError, match=message) as error:
            matrix.update(one, two)
        assert "\n" not in str(error.value)
    with pytest.raises(
        UserError, match="compares the left layers with themselves; give no right side"
    ):
        CKAMatrix(LEFT).update(left, right)
    with pytest.raises(UserError, match=r"left layer 'a' is of .* no Gram matrix"):
        CKAMatrix(["a"]).update_grams([torch.randn(5, 4)])
    with pytest.raises(UserError, match="is not symmetric, so it is no Gram matrix"):
        CKAMatrix(["a"]).update_grams([torch.randn(5, 5)])
    nan_gram = torch.full((5, 5), torch.nan)
    with pytest.raises(UserError, match="left layer 'a' holds NaN"):
        CKAMatrix(["a"]).update_grams([nan_gram])
    assert torch.equal(matrix.compute().value, before)
    assert matrix.compute().batches == 1


def test_bad_settings_are_named() -> None:
    for names in ([], ["a", "a"], "conv1"):
        with pytest.raises(UserError, match="must be a list of different layer names"):
            CKAMatrix(names)
    matrix = CKAMatrix(["a"])
    matrix.update([torch.randn(3, 2)])
    with pytest.raises(
        UserError,
        match=r"nothing to compute: no batch had the 4 items.*1 shorter ones were skipped",
    ):
        matrix.compute()
    with pytest.raises(UserError, match="a confidence lies between 0 and 1"):
        fed(*features(8), [slice(None)]).compute(confidence=95)
    for other in (CKAMatrix(RIGHT), CKAMatrix(["a"], permutations=1), CKAMatrix(["a"], ["a"])):
        with pytest.raises(UserError, match="accumulators of different layers cannot be merged"):
            CKAMatrix(["a"]).merge(other)


def test_nothing_of_the_features_is_kept() -> None:
    left, right = features(16)
    matrix = fed(left, right, [slice(None)])
    for x in left.values():
        x.zero_()
    assert matrix.compute().value.isfinite().all()
    assert sum(value.numel() for value in matrix.state.tensors().values()) == 32 * (3 * 2 + 3 + 2)


def test_features_with_a_graph_are_taken_without_it() -> None:
    left, right = features(16)
    matrix = CKAMatrix(LEFT, RIGHT)
    matrix.update({name: x.requires_grad_() for name, x in left.items()}, right)
    assert not matrix.state.xy.requires_grad
