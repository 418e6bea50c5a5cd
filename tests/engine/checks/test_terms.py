from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage import (
    DIST,
    KD,
    Classification,
    Distiller,
    FrozenTeacher,
    Method,
    NonFiniteError,
    NoTeacher,
    Step,
    UserError,
)
from tutelage.core import Batch
from tutelage.core.method import MethodInfo
from tutelage.engine.checks.teacher import state_hash
from tutelage.engine.checks.terms import check_terms

BATCH = (torch.randn(16, 8), torch.randint(3, (16,)))


class Term(Method):
    """A term made by a function of the step."""

    info = MethodInfo("", "", "")

    def __init__(self, make: object) -> None:
        super().__init__()
        self.make = make

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {"own": self.make(step)}


def net(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def distiller(make: object) -> Distiller:
    return Distiller(net(), NoTeacher(), Term(make), Classification(num_classes=3))


def test_it_reports_value_gradient_and_ratio_and_leaves_everything_as_it_was() -> None:
    whole = Distiller(net(), FrozenTeacher(net(12)), KD(), Classification(num_classes=3))
    before, random = state_hash(whole.student), torch.get_rng_state()
    task, kd = check_terms(whole, BATCH)
    assert state_hash(whole.student) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in whole.parameters())
    assert (task.term, task.ratio) == ("task", pytest.approx(0.1))
    terms = whole.train()(BATCH)
    assert kd.ratio == pytest.approx(kd.gradient / (task.gradient / 0.1))
    assert kd.value == pytest.approx(float(terms["kd"].detach()), rel=1e-6)
    gradients = torch.autograd.grad(terms["kd"], list(whole.student.parameters()))
    assert kd.gradient == pytest.approx(
        float(torch.stack([g.norm() for g in gradients]).norm()), rel=1e-5
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.student.output.detach().mean(),
        lambda s: 0.0 * s.student.output.mean(),
        lambda s: torch.tensor(3.0),
    ],
)
def test_a_term_without_gradient_is_refused_by_name(make: object) -> None:
    with pytest.raises(UserError, match="the term 'own' sends no gradient to the student"):
        check_terms(distiller(make), BATCH)


def test_a_classifier_of_zeros_silences_a_term_for_the_first_step_only() -> None:
    student = net()
    nn.init.zeros_(student[3].weight)
    nn.init.zeros_(student[3].bias)
    whole = Distiller(student, FrozenTeacher(net(12)), DIST(), Classification(num_classes=3))
    before, random = state_hash(student), torch.get_rng_state()
    task, inter, _ = check_terms(whole, BATCH)
    assert state_hash(student) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert task.warning() is None
    assert inter.gradient == 0.0
    assert "the term 'dist/inter' has no gradient yet" in (inter.warning() or "")


def test_a_copy_of_the_teacher_may_be_trained_but_not_by_the_teacher_alone() -> None:
    teacher = net()
    student = copy.deepcopy(teacher).eval()  # in train mode batch norm makes them differ
    method = Term(lambda s: (s.student.output - s.teacher.output).square().mean())
    whole = Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=3))
    task, own = check_terms(whole, BATCH)
    assert task.gradient > 0
    assert "no gradient yet" in (own.warning() or "")
    method.task_weight = 0.0
    with pytest.raises(UserError, match="the term 'own' sends no gradient"):
        check_terms(whole, BATCH)


def test_a_term_that_is_not_finite_is_refused_by_name() -> None:
    with pytest.raises(
        NonFiniteError, match="the term 'own' became nan before the first step"
    ) as caught:
        check_terms(distiller(lambda s: s.student.output.mean() * float("nan")), BATCH)
    assert caught.value.term == "own"


def test_a_loud_term_is_warned_of() -> None:
    task, own = check_terms(distiller(lambda s: 1000.0 * s.student.output.mean()), BATCH)
    assert own.ratio is not None
    assert own.ratio > 10
    assert "pulls" in (own.warning() or "")
    assert task.warning() is None


class Reentrant(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self[1], self[0](x), use_reentrant=True)
        logits: Tensor = self[2](hidden)
        return logits


def test_reentrant_checkpointing_is_told_from_a_fault() -> None:
    student = Reentrant(nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    whole = Distiller(student, FrozenTeacher(net()), KD(), Classification(num_classes=3))
    with pytest.raises(UserError, match=r"reentrant checkpointing.*use_reentrant=False"):
        check_terms(whole, Batch.of(BATCH))
