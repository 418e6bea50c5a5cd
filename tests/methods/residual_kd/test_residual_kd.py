"""Residual distillation in training: who is moved when, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.methods.harness import LAYER_PAIRS, distill, image_batch
from tests.methods.residual_kd.support import LAST, distill_normalized, gradients, run
from tutelage import Method, ResidualKD, UserError
from tutelage.methods.residual_kd import cost, error_removed
from tutelage.models import small_cnn

EXAMPLES: dict[str, Callable[[], Method]] = {
    "residual": lambda: ResidualKD(LAYER_PAIRS),
    "residual stagewise": lambda: ResidualKD(LAYER_PAIRS, schedule="stagewise", task_weight=0.0),
    "residual end to end": lambda: ResidualKD(
        LAYER_PAIRS,
        num_assistants=2,
        schedule="end_to_end",
        distance="attention",
        classifier=None,
    ),
}


# What it promises


@pytest.mark.parametrize("name", EXAMPLES)
def test_student_and_assistants_cost_no_more_than_the_given_student(name: str) -> None:
    method = EXAMPLES[name]()
    deployed = distill(method).deploy()
    given = small_cnn(width=8)
    assert sum(p.numel() for p in deployed.parameters()) <= sum(
        p.numel() for p in given.parameters()
    )
    members = ["student", *(f"assistants.{k}" for k in range(method.num_assistants))]
    expected = {f"{member}.{key}" for member in members for key in given.state_dict()}
    assert set(deployed.state_dict()) == expected
    assert not any(module._forward_hooks for module in deployed.modules())


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_with_an_input_shape_the_multiply_adds_are_no_more_either(share: float) -> None:
    method = ResidualKD(LAST, share=share, input_shape=(1, 28, 28))
    deployed = distill(method, student=small_cnn(width=12)).deploy()
    total, budget = cost(deployed, (1, 28, 28)), cost(small_cnn(width=12), (1, 28, 28))
    assert total.parameters <= budget.parameters
    assert total.multiply_adds <= budget.multiply_adds


def test_the_terms_are_named_after_the_schedule() -> None:
    distiller = distill_normalized(ResidualKD(LAST))
    assert set(distiller(image_batch())) == {
        "task",
        "residual_kd/student/stage3",
        "residual_kd/assistant/stage3",
        "residual_kd/student_task",
    }
    distiller = distill_normalized(ResidualKD(LAST, schedule="end_to_end"))
    assert set(distiller(image_batch())) == {
        "task",
        "residual_kd/student/stage3",
        "residual_kd/combined/stage3",
        "residual_kd/student_task",
    }


# Options


def test_settings_that_do_not_fit_are_named() -> None:
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="share is the assistants' part of the budget"):
            ResidualKD(LAST, share=share)
    for name in ("num_assistants", "channel_multiple"):
        for value in (0, 1.5):
            with pytest.raises(UserError, match=f"{name} is a whole number from 1 on, got {value}"):
                ResidualKD(LAST, **{name: value})
    for shape in (32, (3, "32", 32), (32, 32)):
        with pytest.raises(UserError, match=r"input_shape is .channels, height, width., got"):
            ResidualKD(LAST, input_shape=shape)
    for pairs in ({}, ["stage3"], "stage3"):
        with pytest.raises(UserError, match=r"ResidualKD (takes|needs at least one pair)"):
            ResidualKD(pairs)
    with pytest.raises(UserError, match=r"schedule is 'joint', .*, got 'progressive'"):
        ResidualKD(LAST, schedule="progressive")
    with pytest.raises(UserError, match=r"distance is 'mse' or 'attention', got 'l1'"):
        ResidualKD(LAST, distance="l1")
    with pytest.raises(UserError, match="the assistants learn nothing: raise assistant_weight or"):
        ResidualKD(LAST, assistant_weight=0.0, task_weight=0.0)
    with pytest.raises(
        UserError,
        match=r"'stagewise' has the labels in its own term; set task_weight to 0, not 1.0",
    ):
        ResidualKD(LAST, schedule="stagewise")


# Training


def test_at_the_first_step_the_assistant_adds_nothing_and_its_trunk_waits() -> None:
    distiller = distill_normalized(ResidualKD(LAST)).train()
    network = distiller.student
    terms = distiller(image_batch())
    adapter = network.joint_head().adapters[0][1]
    assert all(not p.detach().any() for p in adapter.parameters())
    assert gradients(sum(terms.values()), network.assistants[0]) == 0
    assert gradients(sum(terms.values()), adapter) > 0
    assert torch.equal(terms["task"], terms["residual_kd/student_task"] * 2)
    run(distiller, 1)
    assert gradients(sum(distiller(image_batch()).values()), network.assistants[0]) > 0


@pytest.mark.parametrize(("num_assistants", "distance"), [(1, "mse"), (2, "mse"), (1, "attention")])
def test_the_student_gets_no_gradient_from_the_assistants_loss(
    num_assistants: int, distance: str
) -> None:
    method = ResidualKD(LAST, num_assistants=num_assistants, distance=distance)
    distiller = distill_normalized(method, width=12)
    run(distiller, 2)
    network, terms = distiller.student, distiller(image_batch())
    loss = terms["residual_kd/assistant/stage3"]
    assert gradients(loss, network.student) == 0
    assert gradients(loss, network.joint_head().adapters[0][0]) == 0
    assert gradients(loss, network.assistants) > 0
    assert gradients(terms["residual_kd/student/stage3"], network.student) > 0
    assert gradients(terms["residual_kd/student/stage3"], network.assistants) == 0


def test_end_to_end_the_student_gets_a_gradient_from_the_combined_loss() -> None:
    distiller = distill_normalized(ResidualKD(LAST, schedule="end_to_end"))
    run(distiller, 2)
    loss = distiller(image_batch())["residual_kd/combined/stage3"]
    assert gradients(loss, distiller.student.student) > 0


def test_the_assistants_loss_waits_for_the_student() -> None:
    distiller = distill_normalized(ResidualKD(LAST)).eval()
    assert distiller(image_batch(), 0.05)["residual_kd/assistant/stage3"] == 0
    assert distiller(image_batch(), 0.1)["residual_kd/assistant/stage3"] > 0
    distiller = distill_normalized(ResidualKD(LAST, schedule="end_to_end"))
    assert distiller(image_batch(), 0.0)["residual_kd/combined/stage3"] > 0


def test_an_assistant_can_correct_an_overshoot() -> None:
    """The trap: an identity adapter after a ReLU is never negative, even where widths agree."""
    torch.manual_seed(0)
    student, teacher = small_cnn(width=8), small_cnn(width=2)
    distiller = distill(ResidualKD(LAST), student=student, teacher=teacher)
    run(distiller, 30, start=0.2)
    features = distiller.step(image_batch()).student
    raw = features.feature("assistants.0.stage3")
    adapted = distiller.student.joint_head().features([features.feature("student.stage3"), raw])
    assert raw.min() >= 0
    assert adapted[1].min() < 0 < adapted[1].max()


def test_without_labels_both_fit_and_the_assistant_removes_error() -> None:
    distiller = distill_normalized(ResidualKD(LAST, student_task_weight=0.0, task_weight=0.0))
    first = {k: float(v.detach()) for k, v in distiller.train()(image_batch()).items()}
    assert list(first) == ["residual_kd/student/stage3", "residual_kd/assistant/stage3"]
    run(distiller, 60)
    last = {k: float(v.detach()) for k, v in distiller(image_batch()).items()}
    assert all(last[name] < first[name] for name in first)
    assert last["residual_kd/assistant/stage3"] < last["residual_kd/student/stage3"]
    step = distiller.step(image_batch())
    raw = [step.student.feature(name) for name in ("student.stage3", "assistants.0.stage3")]
    student, *assistants = distiller.student.joint_head().features(raw)
    assert error_removed(student, assistants, step.teacher.feature("stage3")) > 0


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    """The two as an ensemble that is trained by labels alone is a control worth running."""
    method = ResidualKD(LAST, student_weight=0.0, assistant_weight=0.0, student_task_weight=0.0)
    distiller = distill_normalized(method)
    assert set(distiller(image_batch())) == {"task"}
    run(distiller, 2)
    assert gradients(distiller(image_batch())["task"], distiller.student.assistants) > 0


def test_several_pairs_have_terms_that_all_reach_the_student() -> None:
    distiller = distill_normalized(ResidualKD(LAYER_PAIRS))
    terms = distiller(image_batch())
    assert {"residual_kd/student/stage2", "residual_kd/assistant/stage3"} < set(terms)
    for name, term in terms.items():
        assert gradients(term, distiller.student) > 0, name


@pytest.mark.parametrize(
    "settings",
    [
        {"student_weight": 0.0},
        {"assistant_weight": 0.0},
        {"student_weight": 0.0, "assistant_weight": 0.0},
        {"student_task_weight": 0.0, "task_weight": 0.0},
        {"schedule": "end_to_end", "student_weight": 0.0},
    ],
)
def test_whatever_is_trained_gets_a_gradient(settings: dict[str, Any]) -> None:
    """DDP waits for every parameter that has none."""
    distiller = distill_normalized(ResidualKD({"stage2": "stage2", **LAST}, **settings))
    sum(distiller.train()(image_batch()).values()).backward()
    trained = [(name, p) for name, p in distiller.named_parameters() if p.requires_grad]
    assert [name for name, p in trained if p.grad is None] == []


def test_a_student_in_double_precision_trains() -> None:
    method = ResidualKD(LAST, classifier=None)
    images, labels = image_batch()
    batch = (images.double(), labels)
    student, teacher = small_cnn().double(), small_cnn(width=12).double()
    distiller = distill(method, student=student, teacher=teacher, batch=batch)
    assert distiller(batch)["residual_kd/student/stage3"].dtype == torch.float64
