"""The feature aggregation unit: the official code's numbers, and its two variants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.harness import cases, tensor
from tutelage.core import NoTeacher
from tutelage.errors import UserError
from tutelage.methods import OKDHP
from tutelage.methods.okdhp import FeatureAggregation, ensemble_of
from tutelage.models import stacked_hourglass


def vector(case: int, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("okdhp", f"case{case}_{name}", dtype)


def official_unit(case: int) -> FeatureAggregation:
    """Return the unit with the official code's weights."""
    facts = cases("okdhp")[f"case{case}"]
    unit = FeatureAggregation(
        facts["channels"], facts["branches"], facts["joints"], facts["squeeze"]
    ).double()
    state: dict[str, Tensor] = {}
    for index, kernel in enumerate((3, 5, 7)):
        names = {"0.weight": "conv_w", "0.bias": "conv_b", "1.weight": "bn_w", "1.bias": "bn_b"}
        names |= {"1.running_mean": "bn_rm", "1.running_var": "bn_rv"}
        for ours, theirs in names.items():
            state[f"convolutions.{index}.{ours}"] = vector(case, f"k{kernel}_{theirs}")
        state[f"convolutions.{index}.1.num_batches_tracked"] = torch.tensor(0)
    for ours, theirs in {"weight": "w", "bias": "b"}.items():
        state[f"squeeze.{ours}"] = vector(case, f"fc_{theirs}")
        heads = [vector(case, f"head{branch}_{theirs}") for branch in range(3)]
        state[f"heads.{ours}"] = torch.cat(heads)
    unit.load_state_dict(state)
    return unit.train(facts["train_mode_bn"])


@pytest.mark.parametrize("case", [15, 18])
def test_attention_and_ensembles_are_those_of_the_official_code(case: int) -> None:
    attention = official_unit(case)(vector(case, "stem_features"))
    torch.testing.assert_close(attention, vector(case, "attention"), rtol=0, atol=1e-12)
    maps = vector(case, "all_outputs")
    # The official indices are not the branches' last maps; they appear here only.
    for indices, expected in (
        ("official_indices", "ensemble_official"),
        ("correct_indices", "ensemble_last_of_each_branch"),
    ):
        chosen = [maps[:, index] for index in vector(case, indices, torch.int64).tolist()]
        found = ensemble_of(chosen, attention)
        torch.testing.assert_close(found, vector(case, expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", ["code", "figure"])
def test_both_variants_give_attention_over_any_number_of_branches(variant: str) -> None:
    unit = FeatureAggregation(8, 4, 5, 2, variant)  # type: ignore[arg-type]
    attention = unit(torch.randn(2, 8, 6, 6))
    assert attention.shape == (2, 4, 5)
    torch.testing.assert_close(attention.sum(1), torch.ones(2, 5))


def test_it_has_the_parameters_of_the_official_code() -> None:
    unit = FeatureAggregation(256, 3, 16, 64)
    count = sum(parameter.numel() for parameter in unit.parameters())
    assert round(count / 1e6, 2) == 5.46
    for stacks, expected in ((2, 6.73), (4, 13.02), (8, 25.59)):
        network = stacked_hourglass(16, stacks)
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == expected
    branched = OKDHP().build_student(stacked_hourglass(16, 4), NoTeacher())
    assert round(sum(p.numel() for p in branched.parameters()) / 1e6, 2) == 30.92


def test_mistakes_are_named() -> None:
    one = torch.zeros(1, 3, 4, 4)
    with pytest.raises(UserError, match="needs at least two branches, got 1"):
        ensemble_of([one], torch.ones(1, 1, 3))
    with pytest.raises(UserError, match=r"\(1, 3, 4, 4\), \(1, 3, 8, 8\).*same joints"):
        ensemble_of([one, torch.zeros(1, 3, 8, 8)], torch.ones(1, 2, 3))
    with pytest.raises(UserError, match="variant is 'code' or 'figure', got 'paper'"):
        FeatureAggregation(8, 3, 5, 2, "paper")  # type: ignore[arg-type]


def test_attention_over_other_branches_is_named() -> None:
    maps = [torch.zeros(2, 3, 4, 4)] * 2
    for shape in ((2, 3, 3), (2, 2, 1), (1, 2, 3)):
        with pytest.raises(UserError, match="give one weight a branch and joint"):
            ensemble_of(maps, torch.ones(shape))
