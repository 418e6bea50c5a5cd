"""Layouts of features: what a shape tells, and what must be asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tutelage.errors import UserError
from tutelage.methods.ofa.layout import FeatureLayout, feature_layout, feature_layouts


@pytest.mark.parametrize(
    ("shape", "settings", "layout"),
    [
        ((2, 8, 14, 14), {}, FeatureLayout(8)),
        ((2, 14, 14, 8), {"layout": "NHWC"}, FeatureLayout(8, (14, 14))),
        ((2, 14, 7, 8), {"layout": "NHWC"}, FeatureLayout(8, (14, 7))),
        ((2, 8, 7, 7), {"layout": "NCHW"}, FeatureLayout(8)),
        ((2, 7, 7, 7), {"layout": "NCHW"}, FeatureLayout(7)),
        ((2, 196, 8), {}, FeatureLayout(8, (14, 14))),
        ((2, 200, 8), {"prefix_tokens": 4}, FeatureLayout(8, (14, 14), 4)),
        ((2, 29, 8), {"prefix_tokens": 1, "grid": (4, 7)}, FeatureLayout(8, (4, 7), 1)),
    ],
)
def test_a_layout_follows_from_shape_and_settings(
    shape: tuple[int, ...], settings: dict[str, Any], layout: FeatureLayout
) -> None:
    assert feature_layout(torch.zeros(shape), "x", **settings) == layout


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (
            (2, 197, 8),
            {},
            "197 tokens, which are not 0 prefix tokens and a square grid; "
            r"set prefix_tokens \(with 1 a",
        ),
        (
            (2, 196, 8),
            {"prefix_tokens": 1},
            "196 tokens, which are not 1 prefix tokens and a square grid",
        ),
        (
            (2, 25, 8),
            {"prefix_tokens": 1, "grid": (4, 7)},
            "25 tokens, which are not 1 prefix tokens and a grid of 4 × 7",
        ),
        (
            (2, 7, 7, 8),
            {},
            "does not tell where the channels are; layout is 'NCHW' or 'NHWC', got None",
        ),
        ((2, 7, 7, 7), {}, "does not tell where the channels are"),
        ((2, 8, 14, 7), {}, "does not tell where the channels are"),
        ((2, 8, 7, 7), {"layout": "HWC"}, "got 'HWC'"),
        ((2, 8), {}, "needs a map of four dimensions, or tokens"),
    ],
)
def test_a_shape_is_never_guessed(
    shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"the stage 'x' gives .*{message}"):
        feature_layout(torch.zeros(shape), "x", **settings)


@pytest.mark.parametrize("settings", [{"prefix_tokens": 1}, {"grid": (3, 3)}])
def test_settings_for_tokens_need_tokens(settings: dict[str, Any]) -> None:
    features = {"stage3": torch.zeros(2, 8, 3, 3)}
    with pytest.raises(UserError, match=r"describe tokens \(N, L, D\), but the stages give .*3"):
        feature_layouts(features, **settings)
