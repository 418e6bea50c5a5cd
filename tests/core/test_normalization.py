from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.core.normalization import normalization, normalize_inputs


def test_it_shifts_and_scales_and_keeps_names_and_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1))
    keys, names = list(net.state_dict()), [name for name, _ in net.named_modules()]
    images = torch.rand(2, 3, 4, 4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = net((images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    normalize_inputs(net, mean, std)
    assert torch.allclose(net(images), expected)
    assert list(net.state_dict()) == keys
    assert [name for name, _ in net.named_modules()] == names


def test_a_second_call_replaces_the_first_and_copies_are_independent() -> None:
    net = normalize_inputs(nn.Identity(), [0.5], [0.5])
    other = normalize_inputs(copy.deepcopy(net), [0.0], [1.0])
    image = torch.ones(1, 1, 1, 1)
    assert net(image).item() == 1.0
    assert normalize_inputs(net, [0.0], [0.5])(image).item() == 2.0
    assert other(image).item() == 1.0
    assert normalization(other) == ([0.0], [1.0])
    assert normalization(nn.Identity()) is None


def test_wrong_statistics_and_channels_are_refused() -> None:
    with pytest.raises(UserError, match="mean has 1 channels and std 2"):
        normalize_inputs(nn.Identity(), [0.5], [0.5, 0.5])
    with pytest.raises(UserError, match="must be positive"):
        normalize_inputs(nn.Identity(), [0.5], [0.0])
    with pytest.raises(UserError, match=r"expects images \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        normalize_inputs(nn.Identity(), [0.5] * 3, [0.5] * 3)(torch.ones(2, 1, 8, 8))
