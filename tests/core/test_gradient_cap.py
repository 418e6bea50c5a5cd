"""The cap on a method's gradient: its size, its memory, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage import KD, Classification, Distiller, FrozenTeacher, GradientCap, UserError


@pytest.fixture
def student() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def around(student: nn.Module, task_weight: float = 1.0) -> Distiller:
    """Return a distiller of the student."""
    method = KD(task_weight=task_weight)
    return Distiller(student, FrozenTeacher(nn.Linear(6, 3)), method, Classification(3))


def terms_of(student: nn.Module, factor: float = 1.0) -> dict[str, Tensor]:
    """Return a term of the labels and two of a method, on one batch."""
    inputs = torch.arange(24.0).reshape(4, 6) / 24
    out = student(inputs)
    return {
        "task": nn.functional.cross_entropy(out, torch.tensor([0, 1, 2, 0])),
        "a": factor * (out - 1).square().mean(),
        "b": factor * out[:, 0].square().mean(),
    }


def gradient(loss: Tensor, student: nn.Module) -> Tensor:
    gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
    return torch.cat([each.flatten() for each in gradients])


def linear(student: nn.Module, slope: Tensor) -> Tensor:
    """Return a loss whose gradient on the student's parameters is `slope`."""
    return torch.cat([each.flatten() for each in student.parameters()]) @ slope


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.0])
def test_the_gradient_of_a_loud_method_is_as_long_as_the_limit_says(
    student: nn.Linear, limit: float
) -> None:
    terms = terms_of(student, 50.0)
    cap = GradientCap(around(student), limit)
    loss = cap(terms)
    labels = gradient(terms["task"], student)
    method = gradient(loss - terms["task"], student)
    raw = gradient(terms["a"] + terms["b"], student)
    across = 1 - max(0.0, torch.cosine_similarity(raw, labels, dim=0).item())
    longest = limit * labels.norm().item() / across
    assert method.norm().item() == pytest.approx(longest, rel=1e-5)
    assert cap.ratio.item() == pytest.approx((raw.norm() / labels.norm()).item(), rel=1e-5)
    expected = torch.cosine_similarity(raw, labels, dim=0).item()
    assert cap.cosine.item() == pytest.approx(expected, abs=1e-6)


def test_a_method_that_pulls_along_may_pull_hard(student: nn.Linear) -> None:
    task = terms_of(student)["task"]
    cap = GradientCap(around(student))
    assert cap({"task": task, "along": 90 * task}).item() == pytest.approx(91 * task.item())
    assert cap.cosine.item() == pytest.approx(1.0)


@pytest.mark.parametrize("cosine", [-0.1, -0.5, -0.9])
def test_a_method_that_pulls_against_the_labels_pulls_less(
    student: nn.Linear, cosine: float
) -> None:
    terms = terms_of(student)
    labels, other = gradient(terms["task"], student), gradient(terms["a"], student)
    across = other - (other @ labels) / (labels @ labels) * labels
    # Of the length 300 times the labels', at this angle to them.
    wanted = cosine * labels + (1 - cosine**2) ** 0.5 * labels.norm() / across.norm() * across
    cap = GradientCap(around(student))
    loss = cap({"task": terms["task"], "against": 300 * linear(student, wanted)})
    assert cap.cosine.item() == pytest.approx(cosine, abs=1e-5)
    method = gradient(loss - terms["task"], student)
    assert method.norm() / labels.norm() == pytest.approx(1 + cosine, rel=1e-4)
    descent = gradient(loss, student) @ labels / (labels @ labels)
    assert descent == pytest.approx(1 + cosine * (1 + cosine), rel=1e-4)


def test_a_method_that_pulls_straight_against_the_labels_has_no_weight(student: nn.Linear) -> None:
    task = terms_of(student)["task"]
    cap = GradientCap(around(student))
    cap({"task": task, "against": -500 * task})
    assert cap.weight.item() == pytest.approx(0.0, abs=1e-8)


def test_the_labels_count_as_at_weight_1(student: nn.Linear) -> None:
    terms = terms_of(student, 50.0)
    full = GradientCap(around(student))
    full(terms)
    tenth = GradientCap(around(student, task_weight=0.1))
    loss = tenth({**terms, "task": 0.1 * terms["task"]})
    assert torch.isclose(tenth.weight, full.weight)
    assert torch.isclose(loss, 0.1 * terms["task"] + full.weight * (terms["a"] + terms["b"]))


def test_a_quiet_method_is_left_as_it_is(student: nn.Linear) -> None:
    terms = terms_of(student, 1e-3)
    cap = GradientCap(around(student))
    assert cap(terms).item() == pytest.approx(sum(term.item() for term in terms.values()))
    assert cap.weight.item() == 1.0


def test_the_norms_are_moving_averages_of_the_looks(student: nn.Linear) -> None:
    cap = GradientCap(around(student), every=10)
    ratios = []
    for step in range(12):
        cap(terms_of(student, 2.0 if step < 1 else 20.0))
        ratios.append(cap.ratio.item())
    loud = ratios[0] * 10
    average = ratios[0]
    for step in range(1, 12):
        if step < 5 or step == 10:
            average = 0.9 * average + 0.1 * loud
        assert ratios[step] == pytest.approx(average, rel=1e-5)


def test_a_method_that_is_silent_or_overflows_keeps_its_weight(student: nn.Linear) -> None:
    cap = GradientCap(around(student), every=1)
    cap(terms_of(student, 50.0))
    before = {name: value.clone() for name, value in cap.state_dict().items()}
    loud = terms_of(student)
    cap({"task": loud["task"], "a": 0 * loud["a"]})
    cap({"task": loud["task"], "a": torch.tensor(3.0)})
    cap({"task": loud["task"], "a": loud["a"] * torch.tensor(torch.inf)})
    for name in ("weight", "ratio", "cosine", "_norms"):
        assert torch.equal(cap.state_dict()[name], before[name]), name


@pytest.mark.parametrize("factor", [1e20, 1e-24])
def test_gradients_whose_squares_leave_float32(student: nn.Linear, factor: float) -> None:
    terms = terms_of(student, 50.0)
    plain = GradientCap(around(student))
    plain(terms)
    far = GradientCap(around(student))
    far({name: factor * term for name, term in terms.items()})
    for name in ("weight", "ratio", "cosine"):
        assert torch.allclose(getattr(far, name), getattr(plain, name), rtol=1e-5), name


def test_a_method_has_no_weight_until_it_was_seen(student: nn.Linear) -> None:
    cap = GradientCap(around(student), every=7)
    for step in range(8):
        terms = terms_of(student, 0.0 if step < 5 else 1000.0)
        assert torch.isclose(cap(terms), terms["task"]) == (step < 7)
    assert 0 < cap.weight.item() < 0.1
    silent = GradientCap(around(student), every=1)
    silent_terms = terms_of(student, 0.0)
    for _ in range(10):
        silent(silent_terms)
    with pytest.warns(UserWarning, match="had no gradient"):
        silent(silent_terms)


def test_without_labels_or_method_the_loss_is_the_sum(student: nn.Linear) -> None:
    cap = GradientCap(around(student))
    terms = terms_of(student, 50.0)
    task = terms.pop("task")
    assert torch.isclose(cap(terms), terms["a"] + terms["b"])
    assert torch.equal(cap({"task": task}), task)
    assert cap.ratio.item() == 0.0


def test_its_state_goes_on_where_it_was(student: nn.Linear) -> None:
    cap = GradientCap(around(student), every=7)
    for _ in range(6):
        cap(terms_of(student, 5.0))
    other = GradientCap(around(student), every=7)
    other.load_state_dict(cap.state_dict())
    for _ in range(9):
        assert torch.equal(cap(terms_of(student, 50.0)), other(terms_of(student, 50.0)))
    assert torch.equal(cap.weight, other.weight)


def test_gradients_too_small_for_half_precision_are_scaled(student: nn.Linear) -> None:
    plain = GradientCap(around(student))
    scaled = GradientCap(around(student), scale=lambda loss: 1024 * loss)
    terms = terms_of(student, 50.0)
    assert torch.isclose(plain(terms), scaled(terms))
    assert torch.allclose(plain._norms, scaled._norms)


def test_frozen_parameters_and_those_out_of_reach_do_not_count(student: nn.Linear) -> None:
    student.bias.requires_grad_(False)
    beside = nn.Parameter(torch.ones(5))
    student.register_parameter("beside", beside)
    cap = GradientCap(around(student))
    terms = terms_of(student, 50.0)
    cap(terms)
    labels, method = (
        torch.autograd.grad(loss, student.weight, retain_graph=True)[0].norm()
        for loss in (terms["task"], terms["a"] + terms["b"])
    )
    assert cap.ratio.item() == pytest.approx((method / labels).item(), rel=1e-5)


def test_layers_may_be_frozen_and_freed_during_a_run(student: nn.Linear) -> None:
    cap = GradientCap(around(student), every=1)
    cap(terms_of(student, 50.0))
    student.bias.requires_grad_(False)
    assert cap(terms_of(student, 50.0)).isfinite()
    before = cap.weight.clone()
    loss = student(torch.ones(4, 6)).square().mean()
    student.requires_grad_(False)
    cap({"task": loss, "a": 50 * loss})
    assert torch.equal(cap.weight, before)
    student.weight.requires_grad_(True)
    late, whole = GradientCap(around(student)), GradientCap(around(student.requires_grad_(True)))
    late(terms_of(student, 50.0))
    whole(terms_of(student, 50.0))
    assert torch.equal(late.ratio, whole.ratio)


def test_wrong_arguments_are_a_sentence(student: nn.Linear) -> None:
    with pytest.raises(UserError, match="the limit of a gradient cap is a positive number, got 0"):
        GradientCap(around(student), 0)
    with pytest.raises(UserError, match="every is a whole number of steps, at least 1, got 0"):
        GradientCap(around(student), every=0)
    with pytest.raises(UserError, match="every is a whole number of steps, at least 1, got True"):
        GradientCap(around(student), every=True)
    with pytest.raises(UserError, match="task_weight is 0, so there is no gradient of the labels"):
        GradientCap(around(student, task_weight=0.0))
    with pytest.raises(UserError, match="a student with parameters that are trained"):
        GradientCap(around(student.requires_grad_(False)))
    with pytest.raises(UserError, match="what is capped must be a Distiller"):
        GradientCap(student)  # type: ignore[arg-type]
    for terms in ({}, [torch.ones(())], {"task": 1.0}, {"task": torch.ones(2)}):
        with pytest.raises(UserError, match="a gradient cap takes"):
            GradientCap(around(nn.Linear(6, 3)))(terms)  # type: ignore[arg-type]


def test_reentrant_checkpointing_is_a_sentence(student: nn.Linear) -> None:
    out = checkpoint(nn.Linear(3, 3), student(torch.ones(2, 6)), use_reentrant=True).sum()
    with pytest.raises(UserError, match="use_reentrant=False"):
        GradientCap(around(student))({"task": out, "a": 2 * out})
