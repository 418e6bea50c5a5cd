"""Exit branches against those of the official code, and where that code must not be followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.methods.harness import FOLDER, listed, tensor
from tutelage.errors import UserError
from tutelage.methods.ofa.branches import PatchMerging, TokenBranch, exit_branch
from tutelage.methods.ofa.layout import FeatureLayout, feature_layout


def token_branch(
    grid: tuple[int, int], prefix_tokens: int, in_channels: int, width: int, stage: int
) -> TokenBranch:
    return TokenBranch(
        grid=grid,
        prefix_tokens=prefix_tokens,
        in_channels=in_channels,
        width=width,
        num_classes=5,
        stage=stage,
    )


@pytest.mark.parametrize("case", listed("ofa_branches"), ids=lambda case: str(case["case"]))
def test_a_branch_is_the_official_one(case: dict[str, Any]) -> None:
    key, stage = f"case{case['case']}_", case["stage"]
    feature = tensor("ofa_branches", f"{key}feature").requires_grad_()
    layout = feature_layout(feature, "stage", prefix_tokens=case["prefix_tokens"])
    width = case["student_dim"]
    if layout.grid is None:
        width = max(case["student_dim"], case["teacher_dim"])
    branch = exit_branch(layout, stage, width, case["num_classes"]).double()
    with np.load(FOLDER / "ofa_branches.npz") as arrays:
        official_names = [name for name in arrays.files if name.startswith(f"{key}param/")]
    state = branch.state_dict()
    assert len(state) == len(official_names)
    for our_name, official_name in zip(list(state), official_names, strict=True):
        state[our_name] = tensor("ofa_branches", official_name, state[our_name].dtype)
    branch.load_state_dict(state)
    assert sum(p.numel() for p in branch.parameters()) == case["param_count"]
    torch.testing.assert_close(
        branch.eval()(feature).detach(),
        tensor("ofa_branches", f"{key}logits_eval"),
        rtol=0,
        atol=1e-12,
    )
    logits = branch.train()(feature)
    logits.square().sum().backward()
    torch.testing.assert_close(
        logits.detach(),
        tensor("ofa_branches", f"{key}logits_train"),
        rtol=0,
        atol=1e-12,
    )
    torch.testing.assert_close(
        feature.grad,
        tensor("ofa_branches", f"{key}grad_feature_of_sum_sq_train"),
        rtol=0,
        atol=1e-12,
    )


RESNET18 = [FeatureLayout(c) for c in (64, 128, 256, 512)]
MOBILENET = [FeatureLayout(c) for c in (24, 32, 96, 1280)]
RESNET50 = [FeatureLayout(c) for c in (256, 512, 1024, 2048)]
DEIT = [FeatureLayout(192, (14, 14), 1)] * 4
RESMLP = [FeatureLayout(384, (14, 14))] * 4
SWIN_N = [FeatureLayout(64 * 2**k, (56 // 2**k, 56 // 2**k)) for k in range(4)]
SWIN_P = [FeatureLayout(48 * 2**k, (56 // 2**k, 56 // 2**k)) for k in range(4)]


@pytest.mark.parametrize(
    ("layouts", "width", "millions"),
    [
        (RESNET18, 512, (3.04, 1.19)),
        (RESNET18, 768, (4.39, 1.63)),
        (MOBILENET, 1280, (7.14, 2.53)),
        (RESNET50, 2048, (23.70, 16.33)),
        (DEIT, 192, (4.48, 3.78)),
        (SWIN_N, 512, (28.19, 26.34)),
        (SWIN_P, 384, (16.25, 14.86)),
        (RESMLP, 384, (16.32, 14.94)),
    ],
)
def test_branches_have_the_published_size(
    layouts: list[FeatureLayout], width: int, millions: tuple[float, float]
) -> None:
    for num_classes, expected in zip((1000, 100), millions, strict=True):
        count = 0
        for stage, layout in enumerate(layouts, 1):
            with torch.device("meta"):
                branch = exit_branch(layout, stage, width, num_classes)
            count += sum(p.numel() for p in branch.parameters())
        assert round(count / 1e6, 2) == expected


@pytest.mark.parametrize(
    ("grid", "merged"), [((15, 15), 1), ((15, 29), 1), ((32, 32), 2), ((5, 3), 0)]
)
def test_grids_need_not_be_even_or_square(grid: tuple[int, int], merged: int) -> None:
    branch = token_branch(grid, prefix_tokens=0, in_channels=6, width=10, stage=4)
    assert branch(torch.randn(2, grid[0] * grid[1], 6)).shape == (2, 5)
    assert len(branch.merges) == merged


def test_an_odd_grid_is_padded_at_the_bottom_and_right() -> None:
    merge, x = PatchMerging(6, 10, activation=True), torch.randn(2, 15 * 29, 6)
    tokens, grid = merge(x, (15, 29))
    assert grid == (8, 15)
    corner = torch.cat((x[:, -1], torch.zeros(2, 18)), 1)
    expected = merge.activation(merge.reduction(merge.norm(corner)))
    assert torch.allclose(tokens[:, -1], expected, atol=1e-6)
    first = torch.cat((x[:, 0], x[:, 29], x[:, 1], x[:, 30]), 1)  # down before right
    expected = merge.activation(merge.reduction(merge.norm(first)))
    assert torch.allclose(tokens[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize(("width", "heads"), [(12, 4), (9, 3), (10, 2), (7, 1)])
def test_as_many_heads_as_divide_the_width(width: int, heads: int) -> None:
    branch = token_branch((4, 4), prefix_tokens=1, in_channels=5, width=width, stage=1)
    assert branch.blocks[0].num_heads == heads
    assert branch(torch.randn(2, 17, 5)).shape == (2, 5)


def test_other_tokens_than_at_the_beginning_are_named() -> None:
    branch = exit_branch(FeatureLayout(6, (4, 4), 1), 2, 6, 3)
    message = "got 26 tokens, but was built for 1 prefix tokens and a grid of 4 × 4"
    with pytest.raises(UserError, match=message):
        branch(torch.zeros(2, 26, 6))


def test_one_value_a_channel_is_refused_in_training() -> None:
    branch = exit_branch(FeatureLayout(6), 3, 6, 3)
    message = "cannot train on a batch of 1 whose map of 2 × 2 shrinks to one value a channel"
    with pytest.raises(UserError, match=message):
        branch(torch.zeros(1, 6, 2, 2))
    assert branch.eval()(torch.zeros(1, 6, 2, 2)).shape == (1, 3)
