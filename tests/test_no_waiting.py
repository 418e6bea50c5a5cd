"""A training step reads no value on an accelerator, which would wait for it, and is right there.

Tensors on the meta device have no values: whoever reads one fails. What is done on an accelerator
instead of looking is done here on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.methods.test_contract import EXAMPLES, batch_of, example
from tutelage.methods import afd_loss, dist_loss, kd_loss, rcka_feature_loss, rcka_loss, srd_loss
from tutelage.similarity import alignment, alignment_pair

Loss = Callable[[Tensor, Tensor], Tensor]

READERS = (
    "tutelage.similarity._gram",
    "tutelage.similarity._fused",
    "tutelage.similarity._alignment_by_autograd",
    "tutelage.methods._probabilities",
    "tutelage.methods._divergence",
    "tutelage.methods._attention_maps",
)


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


LOSSES: dict[str, Loss] = {
    "rows": lambda s, t: total(rcka_loss(s, t)),
    "softened": lambda s, t: total(rcka_loss(s, t, soften="both", temperature=1.0)),
    "normalized": lambda s, t: rcka_feature_loss(s, t, gram="normalized"),
    "centered": partial(alignment, center=True),
    "centered rows": partial(alignment, center=True, scale="rows"),
    "cosine": partial(alignment, scale="cosine"),
    "debiased": partial(alignment, estimator="debiased"),
    "debiased narrow": lambda s, t: alignment(s[:, :2], t[:, :3], estimator="debiased"),
    "debiased rows": partial(alignment, estimator="debiased", scale="rows"),
    "debiased pair": lambda s, t: sum(alignment_pair(s, t, estimator="debiased")),
    "high temperature": partial(kd_loss, temperature=1e3),
    "dist": lambda s, t: total(dist_loss(s, t)),
    "srd": partial(srd_loss, distance="dist"),
}


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)  # not known there
    return torch.device("meta")


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_reads_no_value(loss: Loss, meta: torch.device) -> None:
    student = torch.empty(32, 10, device=meta, requires_grad=True)
    value = loss(student, torch.empty(32, 10, device=meta))
    assert torch.autograd.grad(value, student)[0].device == meta


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_step_of_every_method_reads_no_value(name: str, meta: torch.device) -> None:
    distiller = example(name).to(meta)
    images, labels = batch_of(name)
    loss = total(distiller((images.to(meta), labels.to(meta)), progress=1.0))
    parameters = [each for each in distiller.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert all(each.device == meta for each in gradients if each is not None)


def hard_inputs() -> dict[str, tuple[Tensor, Tensor]]:
    student, teacher = torch.randn(2, 32, 10)
    teacher = teacher + student
    cases = {"usual": (student, teacher)}
    for what in ("short row", "short column", "zero row", "far class", "constant column"):
        s = student.clone()
        if what == "short row":
            s[3] *= 1e-20
        elif what == "short column":
            s[:, 1] *= 1e-15
        elif what == "zero row":
            s[0] = 0.0
        elif what == "far class":
            s[:, 1] -= 50.0
        else:
            s[:, 1] = 0.1
        cases[what] = s, teacher
    return cases


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("what", list(hard_inputs()))
def test_what_is_not_looked_at_is_right_all_the_same(
    loss: Loss, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = hard_inputs()[what]

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    expected = value_and_gradient()
    for module in READERS:
        monkeypatch.setattr(f"{module}.may_read", lambda x: False)
    found = value_and_gradient()
    assert torch.allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    size = expected[1].abs().amax(1, keepdim=True)  # short rows have huge gradients
    assert bool(((found[1] - expected[1]).abs() <= 1e-4 * size + 1e-6).all())


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("dense", [True, False])
def test_the_debiased_alignment_of_a_far_row(
    scale: float, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(200, 4)
    y = x @ torch.randn(4, 5) / 2 + torch.randn(200, 5)
    x[0] *= scale
    y[0] *= scale
    expected = alignment(x.double(), y.double(), estimator="debiased").item()
    module = "tutelage.similarity._alignment_by_autograd"
    monkeypatch.setattr(f"{module}.may_read", lambda x: False)
    if not dense:
        monkeypatch.setattr(f"{module}.MAX_DENSE", 100)
    # ‖K‖ / ‖U(K)‖ is about the factor over n here; of large matrices, float64 is taken.
    error = 1e-6 * max(1.0, scale / 10) if dense else 1e-6
    found = alignment(x, y, estimator="debiased").item()
    assert found == pytest.approx(expected, abs=error)


def test_huge_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = torch.rand(2, 2, 3, 8, 8)
    ones = torch.ones(2, 1, 1)
    expected = afd_loss([student], [teacher], ones)
    monkeypatch.setattr("tutelage.methods._attention_maps.may_read", lambda x: False)
    for scale in (1.0, 1e10, 1e20, 1e30):
        found = afd_loss([scale * student], [scale * teacher], ones)
        assert torch.allclose(found, expected, rtol=1e-5)
