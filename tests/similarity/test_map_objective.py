"""The map objective against the official numbers, and what the official code gets wrong."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.helpers.vectors import tensor
from tutelage import UserError
from tutelage.similarity import RBFKernel, behavior_loss, cka, cka_map, map_loss, next_map_weight

RELIABILITY = "cka_reliability"
COUNTS = {15: 3, 16: 4}


def first_batch(case: int) -> list[torch.Tensor]:
    return [tensor(RELIABILITY, f"case{case}_act{index}")[0] for index in range(COUNTS[case])]


@pytest.mark.parametrize("case", COUNTS)
def test_maps_and_objectives_of_the_official_code(case: int) -> None:
    def expected(key: str) -> torch.Tensor:
        return tensor(RELIABILITY, f"case{case}_{key}")

    found = cka_map(first_batch(case))
    assert torch.allclose(found, expected("map_batch0_unbiased"), rtol=0, atol=1e-10)
    rbf = cka_map(first_batch(case), kernel=RBFKernel(0.5, "nonzero"), estimator="biased")
    assert torch.allclose(rbf, expected("map_batch0_rbf05"), rtol=0, atol=1e-10)
    target = expected("target_map")
    assert torch.isclose(map_loss(found, target), expected("logcosh"), rtol=0, atol=1e-10)
    assert torch.isclose(
        map_loss(found, target, form="square"), expected("mse"), rtol=0, atol=1e-10
    )
    rounded = target.float().double()  # the official objective casts its target
    logits, told = expected("logits"), expected("teacher_logits")
    labels = tensor(RELIABILITY, f"case{case}_y", torch.int64)
    for key, alpha, behavior, form in (
        ("distill_a500_T0.1_logcosh", 500, behavior_loss(logits, told), "logcosh"),
        ("distill_a20_T2_mse", 20, behavior_loss(logits, told, temperature=2.0), "square"),
        ("ce_a500_logcosh", 500, cross_entropy(logits, labels), "logcosh"),
    ):
        term = map_loss(found, rounded, form=form)
        total, first, second = expected(key).tolist()
        assert behavior.item() == pytest.approx(first, abs=1e-10)
        assert alpha * term.item() == pytest.approx(
            second, abs=1e-10
        ) or term.item() == pytest.approx(second, abs=1e-10)
        assert (behavior + alpha * term).item() == pytest.approx(total, abs=1e-10)


def test_the_schedule_of_the_official_code() -> None:
    alpha, found = 500.0, []
    for accuracy in tensor(RELIABILITY, "case18_acc").tolist():
        alpha = next_map_weight(alpha, accuracy, 86.0)
        found.append(alpha)
    assert found == pytest.approx(tensor(RELIABILITY, "case18_alpha").tolist(), rel=1e-12)
    assert next_map_weight(9e4, 90.0, 90.0) == 1e5


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_a_map_is_cka_of_all_pairs(estimator: str) -> None:
    layers = [torch.randn(12, 3, 2, 2), torch.randn(12, 7) + 100, torch.randn(12, 30)]
    found = cka_map(layers, estimator=estimator)
    assert found.dtype == torch.float32
    assert torch.allclose(found, found.mT)
    for i, x in enumerate(layers):
        for j, y in enumerate(layers):
            assert found[i, j].item() == pytest.approx(
                cka(x, y, estimator=estimator).item(), abs=1e-5
            )


def test_gradcheck() -> None:
    layers = [torch.randn(6, width, dtype=torch.float64, requires_grad=True) for width in (2, 4, 9)]
    target = torch.eye(3, dtype=torch.float64)
    for kernel, estimator in ((None, "debiased"), (None, "biased"), (RBFKernel(m=5.0), "biased")):

        def loss(
            *sides: torch.Tensor, kernel: RBFKernel | None = kernel, estimator: str = estimator
        ) -> torch.Tensor:
            options = {} if kernel is None else {"kernel": kernel}
            return map_loss(cka_map(sides, estimator=estimator, **options), target)

        assert torch.autograd.gradcheck(loss, layers)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    told = torch.randn(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: behavior_loss(z, told), logits)


def test_a_dead_layer_gives_zeros_and_no_gradient() -> None:
    layers = [torch.randn(8, 4, requires_grad=True), torch.ones(8, 3, requires_grad=True)]
    found = cka_map(layers)
    assert torch.allclose(found, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    map_loss(found, torch.ones(2, 2)).backward()
    assert all(layer.grad is not None and layer.grad.isfinite().all() for layer in layers)
    assert not layers[1].grad.any()


def test_autocast_is_left() -> None:
    layers = [torch.randn(16, 8) + 5, torch.randn(16, 9).relu() + 5]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cka_map([layer.bfloat16() for layer in layers])
        said = behavior_loss(torch.randn(3, 4).bfloat16(), torch.randn(3, 4))
    assert found.dtype == said.dtype == torch.float32
    assert torch.allclose(found, cka_map([layer.bfloat16().float() for layer in layers]), atol=1e-6)


def test_log_cosh_neither_overflows_nor_has_a_corner() -> None:
    gap = torch.tensor([[0.0, 300.0], [300.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = map_loss(gap, torch.zeros(2, 2))
    loss.backward()
    assert loss.item() == pytest.approx((300 - torch.log(torch.tensor(2.0)).item()) / 2)
    assert torch.allclose(gap.grad * 4, torch.tanh(gap.detach()))


def test_bad_maps_and_targets() -> None:
    with pytest.raises(UserError, match="a CKA map needs at least two layers, got 1"):
        cka_map([torch.randn(8, 3)])
    with pytest.raises(
        UserError, match=r"all layers must see the same items, at least 4 of them, got \[8, 7\]"
    ):
        cka_map([torch.randn(8, 3), torch.randn(7, 3)])
    with pytest.raises(UserError, match=r"at least 4 of them, got \[3, 3\]"):
        cka_map([torch.randn(3, 3), torch.randn(3, 3)])
    with pytest.raises(UserError, match="the estimator of a CKA map is one of"):
        cka_map([torch.randn(8, 3), torch.randn(8, 3)], estimator="unbiased")
    found = torch.eye(3)
    with pytest.raises(UserError, match=r"the CKA map has shape \(3, 3\), its target \(8, 8\)"):
        map_loss(found, torch.ones(8, 8))
    for target in (
        torch.tensor([[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        2 * found,
        found * torch.nan,
    ):
        with pytest.raises(UserError, match="a target CKA map is symmetric"):
            map_loss(found, target)
    with pytest.raises(UserError, match="the form of the map loss is one of"):
        map_loss(found, found, form="huber")


def test_the_map_of_a_network_can_be_bent_while_its_accuracy_stays() -> None:
    example = Path(__file__).parents[2] / "examples/cka_map.py"
    found = runpy.run_path(str(example))["main"](steps=300)
    assert found["mean CKA of different layers before"] > 0.9
    assert found["mean CKA of different layers after"] < 0.3
    assert found["accuracy after"] > found["accuracy before"] - 3
