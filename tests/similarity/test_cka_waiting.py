"""On an accelerator the host waits once a batch for all layers, and the figures are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.operators import count_operators
from tutelage.analysis import compare_layers
from tutelage.errors import UserError
from tutelage.similarity import CKAMatrix, gram_of

READERS = ("_layer_gram", "_all_pairs", "_gram")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do on the CPU what is done on an accelerator."""
    for module in READERS:
        monkeypatch.setattr(f"tutelage.similarity.{module}.may_read", lambda x: False)


def layers(count: int, width: int = 12) -> list[Tensor]:
    shared = torch.randn(16, width)
    return [torch.randn(16, width) + shared + index for index in range(count)]


def names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def waits_of_features(count: int, width: int) -> int:
    matrix = CKAMatrix(names(count))
    features = layers(count, width)
    return count_operators(lambda: matrix.update(features)).waits


def waits_of_grams(count: int) -> int:
    matrix = CKAMatrix(names(count), names(count))
    features = layers(count)

    def batch() -> None:
        grams = [gram_of(x) for x in features]
        matrix.update_grams(grams, grams)

    return count_operators(batch).waits


def test_the_number_of_waits_does_not_grow_with_the_layers(unread: None) -> None:
    assert waits_of_grams(2) == waits_of_grams(7)
    assert waits_of_features(2, 40) == waits_of_features(7, 40)
    # Few columns of many items are compared by their features.
    assert waits_of_features(2, 1) == waits_of_features(7, 1)


def test_a_hook_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)  # not known there
    meta = torch.empty(8, 3, 5, 5, device="meta")
    assert gram_of(meta).device == meta.device
    assert gram_of(torch.empty(8, 9000, device="meta")).shape == (8, 8)


def test_the_figures_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    features = layers(3)
    features[1] *= 1e-15  # its squares leave float32's usual range
    features[2] += 50.0

    def values() -> Tensor:
        by_features, by_grams = CKAMatrix(names(3)), CKAMatrix(names(3))
        by_features.update(features)
        by_grams.update_grams([gram_of(x) for x in features])
        return torch.stack([by_features.compute().value, by_grams.compute().value])

    expected = values()
    for module in READERS:
        monkeypatch.setattr(f"tutelage.similarity.{module}.may_read", lambda x: False)
    assert torch.allclose(values(), expected, rtol=0, atol=2e-6)


def test_a_layer_of_nan_or_without_variation_is_still_named(unread: None) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    batch = torch.randn(8, 4)
    batch[0] = torch.nan
    with pytest.raises(UserError, match="left layer '0' holds NaN or infinity"):
        compare_layers([network, network], [["0"], ["2"]], [batch])
    assert not gram_of(torch.full((8, 3), 0.1)).any()
