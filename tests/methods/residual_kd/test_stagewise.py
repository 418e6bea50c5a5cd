"""Residual distillation stage by stage: the student, then the assistants, then the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import distill, image_batch
from tests.methods.residual_kd.support import LAST, distill_normalized, gradients, run, stagewise
from tutelage import CombinedMethod, ResidualKD, UserError
from tutelage.models import small_cnn


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_stage_by_stage_every_part_is_frozen_to_the_last_statistic() -> None:
    """The trap: a frozen student in train mode, whose batch norms go on, or the reverse."""
    distiller = distill_normalized(stagewise())
    network = distiller.student
    student_adapter, assistant_adapter = network.joint_head().adapters[0]
    watched = {
        "student": network.student,
        "assistant": network.assistants,
        "P_S": student_adapter,
        "P_A": assistant_adapter,
        "head": network.joint_head().classifier,
    }
    moved = {}
    for stage, (start, stop) in enumerate(((0.0, 0.5), (0.5, 0.9), (0.9, 1.0))):
        before = {name: weights(module) for name, module in watched.items()}
        run(distiller, 4, start, stop)
        moved[stage] = {
            name for name, module in watched.items() if not is_unchanged(module, before[name])
        }
        assert {m.training for m in network.student.modules()} == {stage == 0}
        assert {m.training for m in network.assistants[0].modules()} == {stage < 2}
    # In the first stage the assistant runs, and its statistics move, but none of its weights do.
    assert moved[0] - {"assistant"} == {"student", "P_S", "head"}
    assert moved[1] == {"assistant", "P_A"}
    assert moved[2] == {"head"}


def test_stage_by_stage_the_assistants_weights_wait() -> None:
    distiller = distill_normalized(stagewise())
    assistants = distiller.student.assistants
    before = {name: p.detach().clone() for name, p in assistants.named_parameters()}
    assert before
    run(distiller, 3, 0.0, 0.5)
    assert all(torch.equal(p, before[name]) for name, p in assistants.named_parameters())


def test_stage_by_stage_has_one_term_that_always_reaches_the_student() -> None:
    distiller = distill_normalized(stagewise())
    for progress in (0.0, 0.5, 0.9, 1.0):
        terms = distiller.train()(image_batch(), progress)
        assert list(terms) == ["residual_kd"]
        assert gradients(terms["residual_kd"], distiller.student) > 0


def test_the_hook_before_a_step_reaches_every_method_of_a_combined_one() -> None:
    distiller = distill(CombinedMethod([stagewise()]), teacher=small_cnn(width=12))
    distiller.train()(image_batch(), 0.6)
    assert not distiller.student.student.training
    assert distiller.student.assistants.training


def test_every_stage_is_tried_before_training() -> None:
    method = ResidualKD(LAST, distance="attention", schedule="stagewise", task_weight=0.0)
    with pytest.raises(UserError, match=r"the attention distance of features .* is always 0"):
        distill_normalized(method, size=4)  # maps of one position


def test_stage_by_stage_needs_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tutelage.methods.residual_kd.residual_kd.is_distributed",
        lambda: True,
    )
    with pytest.raises(UserError, match="'stagewise' trains its parts in turn, in one process"):
        distill_normalized(stagewise())
    assert "task" in distill_normalized(ResidualKD(LAST))(image_batch())
