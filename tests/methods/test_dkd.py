"""DKD against the paper's equations, item by item, and where the official code must not be
followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.operators import count_operators
from tests.methods.harness import distill, gradient, kl_by_hand, softmax_by_hand
from tutelage.core import Batch, Method, Output, Step
from tutelage.errors import UserError
from tutelage.methods import DKD, dkd_loss, kd_loss

EXAMPLES: dict[str, Callable[[], Method]] = {"dkd": DKD}
PLAIN = {"alpha": 1.0, "beta": 1.0, "temperature": 1.0}


def by_hand(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> tuple[float, float]:
    """Return T² TCKD and T² NCKD from probabilities, averaged over the labeled items."""
    binary, rest, count = 0.0, 0.0, 0
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        if y == -100:
            continue
        p, q = softmax_by_hand(s, temperature), softmax_by_hand(t, temperature)
        p_others, q_others = p[:y] + p[y + 1 :], q[:y] + q[y + 1 :]
        binary += kl_by_hand([q[y], sum(q_others)], [p[y], sum(p_others)])
        rest += kl_by_hand(
            [value / sum(q_others) for value in q_others],
            [value / sum(p_others) for value in p_others],
        )
        count += 1
    return temperature**2 * binary / count, temperature**2 * rest / count


def random_case(items: int = 12, classes: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    student, teacher = 3 * torch.randn(2, items, classes, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (items,))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("classes", [3, 10, 100])
def test_both_terms_are_the_papers(temperature: float, classes: int) -> None:
    student, teacher, labels = random_case(classes=classes)
    terms = dkd_loss(student, teacher, labels, alpha=2.0, beta=3.0, temperature=temperature)
    target, rest = by_hand(student, teacher, labels, temperature)
    assert terms["tckd"].item() == pytest.approx(2.0 * target, rel=1e-12)
    assert terms["nckd"].item() == pytest.approx(3.0 * rest, rel=1e-12)


@pytest.mark.parametrize("name", ["tckd", "nckd"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    student, teacher, labels = random_case(items=3, classes=4)
    labels[1] = -100
    assert torch.autograd.gradcheck(
        lambda s: dkd_loss(s, teacher, labels)[name], student.requires_grad_()
    )


def test_together_they_are_plain_kd() -> None:
    """KL = TCKD + (1 - p_t[y]) NCKD, the paper's decomposition, for one item."""
    student, teacher, labels = random_case(items=1)
    terms = dkd_loss(student, teacher, labels, alpha=1.0, beta=1.0, temperature=2.0)
    left = 1 - (teacher / 2.0).softmax(1)[0, labels[0]]
    assert torch.isclose(
        terms["tckd"] + left * terms["nckd"],
        kd_loss(student, teacher, temperature=2.0),
        rtol=1e-12,
    )


def test_a_sure_teacher_silences_plain_kd_but_not_the_ranking_of_the_rest() -> None:
    teacher = torch.tensor([[30.0, 2.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[30.0, 0.0, 2.0]], dtype=torch.float64)
    assert kd_loss(student, teacher, temperature=1.0) < 1e-11
    assert dkd_loss(student, teacher, torch.tensor([0]), temperature=1.0, beta=1.0)["nckd"] > 1.0


def official(student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return both terms at T = 1 with log(softmax) and 1000 taken off the label's logit."""
    label = torch.nn.functional.one_hot(labels, student.shape[1]).bool()
    p, q = student.softmax(1), teacher.softmax(1)
    log_b, b = (torch.stack((x[label], x.masked_fill(label, 0).sum(1)), 1) for x in (p, q))
    log_rest = (student - 1000 * label).log_softmax(1)
    rest_target = (teacher - 1000 * label).softmax(1)
    binary = torch.nn.functional.kl_div(log_b.log(), b, reduction="sum")
    rest = torch.nn.functional.kl_div(log_rest, rest_target, reduction="sum")
    return binary / len(labels), rest / len(labels)


def test_the_official_form_is_the_same_where_it_is_sound() -> None:
    case = random_case()
    terms = dkd_loss(*case, **PLAIN)
    for actual, expected in zip(terms.values(), official(*case), strict=True):
        assert torch.isclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_gaps_are_safe_where_log_of_softmax_is_not(dtype: torch.dtype) -> None:
    student = torch.tensor([[0.0, 900.0, 1.0], [500.0, -500.0, 0.0]], dtype=dtype)
    teacher = torch.tensor([[900.0, 0.0, 1.0], [-500.0, 500.0, 0.0]], dtype=dtype)
    labels = torch.tensor([0, 1])
    student.requires_grad_()
    terms = dkd_loss(student, teacher, labels, **PLAIN)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert terms["tckd"].item() == pytest.approx((900 + 1000) / 2, rel=1e-2)
    assert gradient(sum(terms.values()), student).isfinite().all()
    official_loss = official(student.float(), teacher.float(), labels)[0]
    assert not gradient(official_loss, student).isfinite().all()


def test_a_label_far_ahead_does_not_leak_into_the_rest() -> None:
    student = torch.tensor([[1500.0, 0.0, 3.0]])
    teacher = torch.tensor([[1500.0, 3.0, 0.0]])
    labels = torch.tensor([0])
    expected = by_hand(student[:, 1:], teacher[:, 1:], torch.tensor([0]), 1.0)[0]
    terms = dkd_loss(student, teacher, labels, **PLAIN)
    assert terms["nckd"].item() == pytest.approx(expected, rel=1e-5)
    assert official(student, teacher, labels)[1] < 1e-3


def test_autocast_changes_nothing() -> None:
    student, teacher, labels = random_case()
    student, teacher = student.float(), teacher.float()
    exact = dkd_loss(student, teacher, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = dkd_loss(student, teacher, labels)
    assert all(torch.equal(exact[name], inside[name]) for name in exact)


def test_items_without_a_label_leave_both_terms() -> None:
    student, teacher, labels = random_case()
    labels[[0, 3, 4]] = -100
    student.requires_grad_()
    labeled = labels != -100
    terms = dkd_loss(student, teacher, labels)
    alone = dkd_loss(student[labeled], teacher[labeled], labels[labeled])
    target, rest = by_hand(student.detach(), teacher, labels, 4.0)
    assert terms["tckd"].item() == pytest.approx(target, rel=1e-12)
    assert terms["nckd"].item() == pytest.approx(8 * rest, rel=1e-12)
    assert all(torch.isclose(terms[name], alone[name], rtol=1e-12) for name in terms)
    slope = gradient(sum(terms.values()), student)
    assert (slope[~labeled] == 0).all()
    assert (slope[labeled] != 0).any(1).all()


def test_a_batch_without_any_label_gives_zero_with_a_gradient_of_zero() -> None:
    student, teacher, _ = random_case()
    terms = dkd_loss(student.requires_grad_(), teacher, torch.full((12,), -100))
    sum(terms.values()).backward()
    assert all(term == 0 for term in terms.values())
    assert (student.grad == 0).all()


def test_a_weight_of_none_or_zero_is_off_and_two_classes_have_no_rest() -> None:
    case = random_case()
    assert list(dkd_loss(*case, alpha=None)) == ["nckd"]
    assert list(dkd_loss(*case, beta=0.0)) == ["tckd"]
    assert list(dkd_loss(*random_case(classes=2))) == ["tckd"]


def run(method: DKD, progress: float, batch: Any) -> dict[str, Tensor]:
    student, teacher, _ = random_case()
    return method(
        Step(Output(student), Output(teacher), Batch.of(batch), lambda out: out, progress)
    )


def test_the_warm_up_is_twenty_of_two_hundred_and_forty_epochs() -> None:
    batch, values = (None, torch.arange(12) % 7), []
    for epoch in (0, 10, 20, 240):
        torch.manual_seed(0)
        values.append(run(DKD(), epoch / 240, batch)["dkd/nckd"].item())
    assert values[0] == 0
    assert values[1] == pytest.approx(values[2] / 2)
    assert values[2] == values[3] > 0
    torch.manual_seed(0)
    assert run(DKD(ramp=None), 0.0, batch)["dkd/nckd"].item() == values[2]


def test_labels_come_from_tuples_and_from_dicts() -> None:
    labels = torch.arange(12) % 7
    torch.manual_seed(0)
    pair = run(DKD(), 1.0, (None, labels))
    torch.manual_seed(0)
    named = run(DKD(), 1.0, {"inputs": None, "labels": labels})
    assert list(pair) == ["dkd/tckd", "dkd/nckd"]
    assert all(torch.equal(pair[name], named[name]) for name in pair)
    for batch in ({"pixels": labels}, (labels,)):
        with pytest.raises(UserError, match="the method needs labels; give batches as"):
            run(DKD(), 1.0, batch)


def test_a_teacher_that_gives_nan_is_refused_before_training() -> None:
    teacher = nn.Linear(8, 3)
    nn.init.constant_(teacher.weight, float("nan"))
    batch = (torch.randn(4, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="the teacher's output holds NaN or infinity"):
        distill(DKD(), student=nn.Linear(8, 3), teacher=teacher, batch=batch, num_classes=3)


ZEROS = torch.zeros(4, 3)
NO_LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("student", "teacher", "labels", "message"),
    [
        (ZEROS, torch.zeros(4, 5), NO_LABELS, r"got \(4, 3\) from the student and \(4, 5\)"),
        (
            torch.zeros(4, 3, 2),
            torch.zeros(4, 3, 2),
            NO_LABELS,
            "the same items and classes, no maps",
        ),
        (torch.zeros(0, 3), torch.zeros(0, 3), NO_LABELS[:0], "DKD needs logits"),
        (torch.zeros(4, 1), torch.zeros(4, 1), NO_LABELS, "two classes or more"),
        (ZEROS.long(), ZEROS, NO_LABELS, "torch.int64 and torch.float32"),
        (ZEROS, ZEROS, NO_LABELS[:3], r"labels \(4,\) of int64"),
        (ZEROS, ZEROS, torch.zeros(4), r"got \(4,\) of torch.float32"),
        (ZEROS, ZEROS, torch.tensor([0, 1, 3, 0]), "the label 3 is none of the 3 classes"),
        (ZEROS, ZEROS, torch.tensor([0, 1, -1, 0]), "the label -1 is none of the 3 classes"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    student: Tensor, teacher: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dkd_loss(student, teacher, labels)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="the temperature of DKD must be positive, got 0"):
        DKD(temperature=0.0)
    with pytest.raises(UserError, match="the temperature of DKD must be positive, got nan"):
        dkd_loss(ZEROS[:1], ZEROS[:1], torch.tensor([0]), temperature=float("nan"))
    with pytest.raises(UserError, match=r"ramp is \(start, stop\)"):
        DKD(ramp=(0.5, 0.1))


def test_weights_that_leave_nothing_are_refused_before_training() -> None:
    batch = torch.randn(6, 4), torch.tensor([0, 1] * 3)
    for method in (DKD(alpha=None), DKD(alpha=0, beta=0)):
        with pytest.raises(UserError, match="DKD has no term left with these weights"):
            distill(
                method,
                student=nn.Linear(4, 2),
                teacher=nn.Linear(4, 2),
                batch=batch,
                num_classes=2,
            )


def test_the_hand_written_gradient_is_that_of_autograd() -> None:
    student, teacher, labels = random_case()
    labels[[2, 5]] = -100
    student[0] *= 30.0
    for each in (student, teacher):
        each.requires_grad_()
    # A teacher with a gradient goes through autograd.
    slow = gradient(sum(dkd_loss(student, teacher, labels).values()), student)
    fast = gradient(sum(dkd_loss(student, teacher.detach(), labels).values()), student)
    assert torch.allclose(fast, slow, rtol=1e-10, atol=1e-14)


def test_it_can_be_differentiated_twice() -> None:
    student, teacher, labels = random_case(items=3, classes=4)
    assert torch.autograd.gradgradcheck(
        lambda s: sum(dkd_loss(s, teacher, labels).values()), student.requires_grad_()
    )


def test_it_takes_few_operators() -> None:
    student, teacher, labels = random_case(64, 100)
    student.requires_grad_()

    def step() -> None:
        student.grad = None
        torch.stack(list(dkd_loss(student, teacher, labels).values())).sum().backward()

    # 103 by autograd; the official form takes 65.
    assert count_operators(step).counts.total() <= 68
