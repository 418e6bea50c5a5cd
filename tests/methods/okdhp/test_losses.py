"""OKDHP's terms: the official code's numbers, and what it does not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.methods.harness import cases, tensor
from tutelage.core.heatmaps import heatmap_mse
from tutelage.errors import UserError
from tutelage.methods import okdhp_loss
from tutelage.methods.okdhp import okdhp_ramp


def vector(case: int, name: str) -> Tensor:
    return tensor("okdhp", f"case{case}_{name}")


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected.view(found.shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [8, 9])
def test_losses_and_gradients_are_those_of_the_official_code(case: int) -> None:
    maps = vector(case, "pred").requires_grad_()
    ensemble = vector(case, "ens").requires_grad_()
    target, weight = vector(case, "gt"), vector(case, "weight")
    error = heatmap_mse(maps, target, weight)
    assert_equal(error, vector(case, "mse_weighted"))
    assert_equal(heatmap_mse(maps, target), vector(case, "mse_unweighted"))
    assert_equal(torch.autograd.grad(error, maps)[0], vector(case, "grad_pred_mse"))
    divergence = okdhp_loss(maps, ensemble, weight)
    assert_equal(divergence, vector(case, "kld"))
    slopes = torch.autograd.grad(divergence, (maps, ensemble))
    assert_equal(slopes[0], vector(case, "grad_pred_kld"))
    assert_equal(slopes[1], vector(case, "grad_ens_kld"))


def test_the_objective_is_that_of_the_official_code() -> None:
    facts = cases("okdhp")["case21"]
    maps = vector(21, "outputs").transpose(0, 1)
    ensemble, target, weight = (vector(21, name) for name in ("ens", "gt", "weight"))
    ramp = okdhp_ramp(facts["epoch"], facts["ramp_length"])
    terms = [
        heatmap_mse(maps, target, weight),
        facts["kd_weight"] * ramp * okdhp_loss(maps, ensemble, weight),
        facts["ens_weight"] * heatmap_mse(ensemble, target, weight),
    ]
    assert_equal(torch.stack([*terms, sum(terms)]), vector(21, "hard_soft_ens_total"))


def test_the_ramp() -> None:
    assert okdhp_ramp(0, 60) == pytest.approx(math.exp(-5))
    assert okdhp_ramp(30, 60) == pytest.approx(math.exp(-1.25))
    assert okdhp_ramp(61, 60) == okdhp_ramp(0, 0) == 1.0
    with pytest.raises(UserError, match="length of at least 0, got -1"):
        okdhp_ramp(0, -1)


def test_a_fraction_as_weight_gates_and_is_no_temperature() -> None:
    maps, ensemble = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    half = torch.full((1, 1), 0.5)
    whole = okdhp_loss(maps[None], ensemble[None])
    assert okdhp_loss(maps[None], ensemble[None], half) == pytest.approx(0.5 * whole.item())


def test_no_visible_joint_is_0_without_gradient() -> None:
    maps, ensemble = torch.randn(2, 3, 2, 4, 4).requires_grad_(), torch.randn(3, 2, 4, 4)
    for reduction in ("okdhp", "joint_mean", "batch_mean"):
        loss = okdhp_loss(maps[0], ensemble, torch.zeros(3, 2, 1), reduction=reduction)
        loss = loss + heatmap_mse(maps[0], ensemble, torch.zeros(3, 2))
        assert loss.item() == 0.0
        assert torch.autograd.grad(loss, maps)[0].abs().sum() == 0.0


def test_reductions_differ_by_their_sizes() -> None:
    maps, ensemble = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    whole = okdhp_loss(maps, ensemble, weight, reduction="batch_mean") * 3
    assert okdhp_loss(maps, ensemble, weight) * 3 * 20 == pytest.approx(whole.item())
    mean = okdhp_loss(maps, ensemble, weight, reduction="joint_mean")
    assert mean * 3 == pytest.approx(whole.item())


def test_temperature_divides_the_maps_and_detaching_stops_the_ensemble() -> None:
    maps, ensemble = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    sharp = okdhp_loss(maps, ensemble, temperature=0.25)
    assert sharp.item() == pytest.approx(okdhp_loss(4 * maps, 4 * ensemble).item(), rel=1e-5)
    assert not okdhp_loss(maps, ensemble, detach_teacher=True).requires_grad


def test_large_maps_stay_finite_in_half_precision() -> None:
    maps = 300 * torch.randn(1, 2, 64, 64)
    assert okdhp_loss(maps.half(), -maps.half(), temperature=0.1).isfinite()


def test_mistakes_are_named() -> None:
    maps = torch.zeros(2, 3, 8, 8)
    for weight in (torch.full((2, 3), -1.0), torch.full((2, 3), math.nan)):
        with pytest.raises(UserError, match="negative or NaN; give 1 to a visible"):
            okdhp_loss(maps, maps, weight)
    with pytest.raises(UserError, match=r"\(2, 3\) or \(2, 3, 1\).*got \(2, 4\)"):
        okdhp_loss(maps, maps, torch.ones(2, 4))
    with pytest.raises(UserError, match=r"same images, joints and size"):
        okdhp_loss(maps, torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="temperature of OKDHP must be positive, got 0"):
        okdhp_loss(maps, maps, temperature=0.0)
    with pytest.raises(UserError, match="reduction is 'okdhp', 'joint_mean' or 'batch_mean'"):
        okdhp_loss(maps, maps, reduction="sum")  # type: ignore[arg-type]
