"""Narrow copies of a network, and that all of them together cost no more than it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from tests.methods.harness import FOLDER
from tutelage import UserError
from tutelage.methods.residual_kd import ResidualNetwork, cost, scale_width, split_student
from tutelage.methods.residual_kd.split import member_widths
from tutelage.models import cifar_resnet, mobilenet_v2, shufflenet_v1, small_cnn, vgg8, wrn_16_2


def test_widths_are_the_closed_form() -> None:
    vectors = json.loads((FOLDER / "residual_kd.json").read_text())
    rule = vectors["budget_split_closed_form"]["rho->(w_S,w_A)"]
    for share, widths in rule.items():
        assert member_widths(float(share), num_assistants=1) == pytest.approx(widths, abs=1e-12)
    assert member_widths(0.2, num_assistants=2) == pytest.approx(
        [math.sqrt(0.8), math.sqrt(0.1), math.sqrt(0.1)]
    )


@pytest.mark.parametrize(
    ("share", "student", "assistant", "multiply_adds"),
    [
        (0.1, (15, 30, 61), (5, 10, 20), 0.987),
        (0.2, (14, 29, 57), (7, 14, 29), 0.990),
        (0.25, (14, 28, 55), (8, 16, 32), 1.008),
        (0.5, (11, 23, 45), (11, 23, 45), 0.990),
    ],
)
def test_the_formula_alone_gives_the_designs_table_and_may_exceed_the_budget(
    share: float, student: Sequence[int], assistant: Sequence[int], multiply_adds: float
) -> None:
    network, input_shape = cifar_resnet(56, (16, 16, 32, 64)).to("meta"), (3, 32, 32)
    members = [scale_width(network, width) for width in member_widths(share, num_assistants=1)]
    for member, expected in zip(members, (student, assistant), strict=True):
        layers = [member.get_submodule(f"stage{i}.0.body.0") for i in (1, 2, 3)]
        assert tuple(layer.out_channels for layer in layers) == expected
    total = sum(cost(member, input_shape).multiply_adds for member in members)
    budget = cost(network, input_shape).multiply_adds
    assert total / budget == pytest.approx(multiply_adds, abs=0.003)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("num_assistants", [1, 2])
def test_the_members_never_cost_more_than_the_given_network(
    share: float, num_assistants: int
) -> None:
    network, input_shape = small_cnn(width=12, convs=2), (1, 28, 28)
    members = split_student(
        network, share=share, num_assistants=num_assistants, input_shape=input_shape
    )
    budget = cost(network, input_shape)
    assert len(members) == 1 + num_assistants
    costs = [cost(member, input_shape) for member in members]
    assert 0.8 * budget.parameters < sum(c.parameters for c in costs) <= budget.parameters
    assert 0.8 * budget.multiply_adds < sum(c.multiply_adds for c in costs) <= budget.multiply_adds
    # As one network: classifiers included, and nothing besides.
    joined = cost(ResidualNetwork(members[0], members[1:]), input_shape)
    assert joined.parameters <= budget.parameters
    assert joined.multiply_adds <= budget.multiply_adds


def test_costs_are_counted_by_hooks_on_what_runs() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )
    counted = cost(net, (3, 8, 8))
    assert counted.parameters == sum(p.numel() for p in net.parameters())
    assert counted.multiply_adds == 16 * 8 * 27 + 16 * 8 * 9 + 128 * 5
    assert not net[0]._forward_hooks


def test_a_multiple_of_eight() -> None:
    members = split_student(cifar_resnet(8, (32, 64, 128, 256)), channel_multiple=8)
    for member in members:
        convolutions = [layer for layer in member.modules() if isinstance(layer, nn.Conv2d)]
        assert all(layer.out_channels % 8 == 0 for layer in convolutions)


@pytest.mark.parametrize("make", [wrn_16_2, vgg8, mobilenet_v2])
def test_the_zoo_can_be_narrowed_and_keeps_its_way_to_initialize(
    make: Callable[..., nn.Module],
) -> None:
    network = make(num_classes=10)
    narrow = scale_width(network, 0.5)
    assert narrow(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    layers = [
        (wide, thin)
        for wide, thin in zip(network.modules(), narrow.modules(), strict=True)
        if isinstance(wide, nn.Conv2d) and wide.weight.numel() > 5000 and wide.groups == 1
    ]
    assert layers
    for wide, thin in layers:
        gain = (wide.weight[0].numel() / thin.weight[0].numel()) ** 0.5
        assert thin.weight.std().item() == pytest.approx(gain * wide.weight.std().item(), rel=0.1)
    norms = [m for m in narrow.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(m.weight, torch.ones_like(m.weight)) for m in norms)


def test_networks_that_cannot_be_shared_out_are_refused_with_the_layer() -> None:
    with pytest.raises(
        UserError, match=r"leaves none of the 4 channels of the layer 'stage1.0'; change share"
    ):
        split_student(small_cnn(width=4), share=0.01)
    with pytest.raises(
        UserError, match=r"the layer 'stage1.0.body.\d' has 3 groups, .*set channel_multiple to 3"
    ):
        split_student(shufflenet_v1())
    with pytest.raises(UserError, match=r"the layer '2', a LayerNorm cannot be narrowed"):
        split_student(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8)))
    with pytest.raises(UserError, match="Sequential has no linear classifier to share out"):
        split_student(nn.Sequential(nn.Conv2d(1, 4, 3)))
    with pytest.raises(UserError, match=r"takes 30 features, no multiple of the 4 channels"):
        scale_width(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(30, 2)), 0.5)
    with pytest.raises(
        UserError, match=r"a SmallCNN fails on an image \(3, 8, 8\): .*check input_shape"
    ):
        split_student(small_cnn(), input_shape=(3, 8, 8))


def test_budgets_that_do_not_fit_are_named() -> None:
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(
            UserError, match="share is the assistants' part of the budget, between 0 and 1, got"
        ):
            split_student(small_cnn(), share=share)
    for name in ("num_assistants", "channel_multiple"):
        for value in (0, 1.5):
            with pytest.raises(UserError, match=f"{name} is a whole number from 1 on, got {value}"):
                split_student(small_cnn(), **{name: value})
    for shape in (32, (3, "32", 32), (32, 32)):
        with pytest.raises(UserError, match=r"input_shape is .channels, height, width., got"):
            split_student(small_cnn(), input_shape=shape)
