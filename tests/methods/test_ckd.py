"""CKD against the numbers of the official code, its properties, and where that code must not be
followed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import (
    EXACT_AND_SINGLE,
    assert_close,
    distill,
    gradient,
    listed,
    make_step,
    setup_method,
    tensor,
)
from tutelage.core import Batch, Method, Output, Step
from tutelage.errors import UserError
from tutelage.methods import CKD, ckd_agreement, ckd_loss

EXAMPLES: dict[str, Callable[[], Method]] = {
    "ckd": CKD,
    "ckd same class": lambda: CKD(temperature=0.5, mask_same_class=True),
}
RANK_EXAMPLES: dict[str, Callable[[], Method]] = {
    "ckd": lambda: CKD(task_weight=0.0),
    "ckd sharp": lambda: CKD(task_weight=0.0, temperature=0.1),
    "ckd same class": lambda: CKD(task_weight=0.0, mask_same_class=True),
}
SHARE_EXAMPLES: dict[str, Callable[[], Method]] = {
    "ckd own share": lambda: CKD(task_weight=0.0, gather_distributed=False),
}
CASES = listed("ckd")


def vector(case: dict[str, Any], key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("ckd", f"case{case['case']}_{key}", dtype)


def logits(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    student = vector(case, "student_logits", dtype).requires_grad_()
    return student, vector(case, "teacher_logits", dtype)


def loss_of(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    return ckd_loss(student=student, teacher=teacher, **options)


def run(method: CKD, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
    return method(make_step(student, teacher, labels))["ckd"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
def test_values_and_gradients_are_the_official_ones(
    case: dict[str, Any], dtype: torch.dtype, error: float
) -> None:
    student, teacher = logits(case, dtype)
    loss = loss_of(student, teacher, temperature=case["temperature"])
    loss.backward()
    assert_close(loss, vector(case, "loss"), error)
    assert_close(student.grad, vector(case, "grad_student"), error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.filterwarnings("ignore:CKD has almost no signal", "ignore:logits shorter")
def test_the_weighted_total_is_the_official_one(
    case: dict[str, Any], dtype: torch.dtype, error: float
) -> None:
    student, teacher = logits(case, dtype)
    cross_entropy = F.cross_entropy(student, vector(case, "targets", torch.int64))
    task = case["ce_weight"] * cross_entropy
    method = CKD(weight=case["cl_weight"], temperature=case["temperature"])
    term = run(method, student, teacher)
    (task + term).backward()
    assert_close(term, vector(case, "total_kd"), error)
    assert_close(task + term, vector(case, "total"), error)
    assert_close(student.grad, vector(case, "grad_total"), error)


def test_the_gradient_is_orthogonal_to_the_row_and_scales_as_one_over_its_length() -> None:
    student, teacher = torch.randn(2, 8, 10, dtype=torch.float64)
    slope = gradient(loss_of(student.requires_grad_(), teacher), student)
    assert ((student * slope).sum(1).abs() < 1e-16).all()
    scale = torch.rand(8, 1, dtype=torch.float64) + 0.5
    assert torch.isclose(
        loss_of(student * scale, 3 * teacher), loss_of(student, teacher), rtol=1e-14
    )
    scaled = (student.detach() * scale).requires_grad_()
    assert torch.allclose(gradient(loss_of(scaled, teacher), scaled) * scale, slope, rtol=1e-12)


def test_a_constant_added_to_a_row_changes_the_loss() -> None:
    student, teacher = torch.randn(2, 8, 10, dtype=torch.float64)
    assert abs(loss_of(student + 3, teacher) - loss_of(student, teacher)) > 1e-2


def test_roles_cannot_be_swapped_by_position() -> None:
    """The official repository has the function twice, with both orders."""
    student, teacher = logits(CASES[0])
    assert round(loss_of(student, teacher).item(), 4) == 1.3552
    assert round(loss_of(teacher, student).item(), 4) == 1.3424
    for function in (ckd_loss, ckd_agreement):
        with pytest.raises(TypeError, match="positional"):
            function(student, teacher)  # type: ignore[misc]


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 8, 10).unbind()
    loss_of(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None


def test_unrelated_networks_give_log_b_and_the_floor_is_a_regular_simplex() -> None:
    student, teacher = torch.randn(2, 64, 2000, dtype=torch.float64)
    assert loss_of(student, teacher).item() == pytest.approx(math.log(64), abs=0.01)
    for items, temperature, floor in ((64, 1.0, 3.170), (32, 2.0, 2.970)):
        simplex = torch.eye(items, dtype=torch.float64) - 1 / items
        lowest = loss_of(simplex, simplex, temperature=temperature).item()
        bound = math.log(1 + (items - 1) * math.exp(-items / ((items - 1) * temperature)))
        assert lowest == pytest.approx(bound, rel=1e-12)
        assert lowest == pytest.approx(floor, abs=1e-3)
        random = torch.randn(2, items, 100, dtype=torch.float64)
        assert loss_of(*random, temperature=temperature) > bound


def test_agreement_is_the_progress_that_the_value_hides() -> None:
    teacher = torch.eye(16)
    far = ckd_agreement(student=teacher.roll(1, 0), teacher=teacher)
    near = ckd_agreement(student=5 * teacher + 0.1, teacher=teacher)
    assert {name: value.item() for name, value in far.items()} == {"cosine": 0.0, "accuracy": 0.0}
    assert near["accuracy"] == 1.0
    assert near["cosine"] > 0.99
    collapsed = ckd_agreement(student=torch.ones(16, 16), teacher=teacher)
    assert collapsed["accuracy"] == 1 / 16


def test_masks_and_labels_that_do_not_fit_are_named() -> None:
    for mask in (torch.zeros(4, dtype=torch.bool), torch.zeros(4, 4)):
        with pytest.raises(UserError, match=r"ignored_pairs is \(4, 4\) of torch.bool, got"):
            loss_of(torch.eye(4), torch.eye(4), ignored_pairs=mask)
    for labels in (
        torch.zeros(9, 1).long(),
        torch.zeros(1).long(),
        torch.zeros(9, 5),
        torch.zeros(8).long(),
    ):
        with pytest.raises(UserError, match=r"CKD needs labels \(9,\) of int64, one class an item"):
            run(CKD(mask_same_class=True), *torch.randn(2, 9, 5), labels)


# ---- where the official code must not be followed (section 7 of the specification) ----


def plain_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the loss as one writes it down, with nothing done about precision or length."""
    similarity = F.normalize(teacher) @ F.normalize(student).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(student)).to(student.device))


def test_autocast_leaves_the_similarity_in_full_precision() -> None:
    student, teacher = torch.randn(2, 32, 100)
    exact = loss_of(student, teacher, temperature=0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_of(student, teacher, temperature=0.07)
        plain = plain_form(student, teacher, 0.07)
    assert torch.equal(inside, exact)
    assert abs(plain - exact) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 32, 100).to(dtype)
    loss = loss_of(student, teacher, temperature=0.07)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(student.float(), teacher.float(), temperature=0.07))
    assert torch.isclose(loss_of(student.float(), teacher, temperature=0.07), loss)


@pytest.mark.parametrize("length", [0.0, 2e-6])
def test_a_row_of_almost_no_length_warns_once_and_a_larger_eps_tames_it(length: float) -> None:
    student, teacher = torch.randn(2, 10, 6)
    student[0] *= length / student[0].norm()

    def steepest(method: CKD) -> float:
        leaf = student.clone().requires_grad_()
        return float(gradient(run(method, leaf, teacher), leaf).norm(dim=1).max())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        official = min(steepest(CKD(weight=1.0)) for _ in range(3))
        tamed = steepest(CKD(weight=1.0, eps=1e-2))
    assert official > 1e4
    assert tamed <= 1 / 1e-2
    assert [str(warning.message) for warning in caught] == [
        "logits shorter than 1e-4 make CKD's gradient huge; set its eps to 1e-2, or clip"
    ]
    ordinary = torch.randn(10, 6)
    assert torch.equal(loss_of(ordinary, teacher), loss_of(ordinary, teacher, eps=1e-2))


def test_setup_warns_of_a_classifier_that_starts_at_zero() -> None:
    student = nn.Linear(8, 3)
    nn.init.zeros_(student.weight)
    nn.init.zeros_(student.bias)
    batch = (torch.randn(16, 8), torch.zeros(16, dtype=torch.int64))
    with pytest.warns(UserWarning, match="logits shorter than 1e-4"):
        distill(CKD(), student=student, teacher=nn.Linear(8, 3), batch=batch, num_classes=3)


def test_items_of_the_anchors_class_need_not_be_negatives() -> None:
    """Duplicates are pushed apart although the teacher sees them as alike (case 6)."""
    case = next(case for case in CASES if case["case"] == 6)
    student, teacher = logits(case)
    labels = vector(case, "targets", torch.int64)
    with pytest.warns(UserWarning, match="fewer than 8 items"):
        apart = run(CKD(), student, teacher, labels)
    with pytest.warns(UserWarning, match="fewer than 8 items"):
        masked = run(CKD(mask_same_class=True), student, teacher, labels)
    assert apart > 1.0
    assert masked == 0.0  # one class: no negative is left
    assert (gradient(masked, student) == 0).all()


def test_masked_pairs_leave_the_sum_and_unlabeled_items_are_no_class() -> None:
    student, teacher = torch.randn(2, 9, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, -100, -100, -100])
    z, total = F.normalize(teacher) @ F.normalize(student).T, 0.0
    for i, anchor in enumerate(labels.tolist()):
        counted = [
            j for j, y in enumerate(labels.tolist()) if j == i or anchor == -100 or y != anchor
        ]
        total += float(z[i, counted].logsumexp(0) - z[i, i])
    loss = run(CKD(weight=1.0, mask_same_class=True), student, teacher, labels)
    assert loss.item() == pytest.approx(total / 9, rel=1e-12)
    unlabeled = Step(
        Output(student), Output(teacher), Batch.of({"pixels": student}), lambda output: output
    )
    with pytest.raises(UserError, match="the method needs labels"):
        CKD(mask_same_class=True)(unlabeled)


def test_proposals_of_each_image_alone_are_the_mean_over_images() -> None:
    student, teacher = torch.randn(2, 12, 4, dtype=torch.float64)
    image = torch.arange(12) // 4
    loss = loss_of(student, teacher, ignored_pairs=image != image[:, None])
    parts = [loss_of(student[image == i], teacher[image == i]) for i in range(3)]
    assert torch.isclose(loss, sum(parts) / 3, rtol=1e-12)


def test_few_rows_warn_once_and_one_or_none_give_zero_that_is_connected() -> None:
    student, teacher = torch.randn(2, 7, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            run(CKD(), student, teacher)
    assert len(caught) == 1
    assert "fewer than 8 items" in str(caught[0].message)
    for items in (0, 1):
        leaf = student[:items].clone().requires_grad_()
        loss = loss_of(leaf, teacher[:items])
        loss.backward()
        assert loss == 0
        assert (leaf.grad == 0).all()


def test_our_training_batches_are_all_of_one_size() -> None:
    """A last batch of a few items would have hardly any negatives; the official loader keeps it."""
    from tutelage.engine.loader import EpochSampler

    assert {len(items) for items in EpochSampler(100, 32, seed=0)} == {32}


def test_nothing_is_made_elsewhere_and_moved() -> None:
    student, teacher = torch.randn(2, 8, 5)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    with torch.device("meta"):  # where an index lands that does not say its device
        assert loss_of(student, teacher, ignored_pairs=mask).isfinite()
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            plain_form(student, teacher, 1.0)


# ---- bad input ----


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            torch.zeros(4, 3, 2, 2),
            torch.zeros(4, 3, 2, 2),
            r"got \(4, 3, 2, 2\) of torch.float32.*flatten maps to rows",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(5, 3),
            r"of the same items, got \(4, 3\) of .* and \(5, 3\)",
        ),
        (
            torch.zeros(4, 10),
            torch.zeros(4, 100),
            "CKD compares logits: student 10 classes, teacher 100",
        ),
        (
            torch.zeros(4, 1),
            torch.zeros(4, 1),
            "student 1 classes, teacher 1; give both as many, 2 or more",
        ),
        (
            torch.zeros(4, 3, dtype=torch.int64),
            torch.zeros(4, 3),
            r"floating-point .* \(4, 3\) of torch.int64",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loss_of(student, teacher)


def test_settings_that_do_not_fit_are_named() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=f"the temperature of CKD must be positive, got {bad}"):
            CKD(temperature=bad)
        with pytest.raises(UserError, match=f"the eps of CKD must be positive, got {bad}"):
            CKD(eps=bad)
        with pytest.raises(UserError, match="the temperature of CKD must be positive"):
            loss_of(torch.eye(3), torch.eye(3), temperature=bad)
        with pytest.raises(UserError, match="the eps of CKD must be positive"):
            loss_of(torch.eye(3), torch.eye(3), eps=bad)


def test_nan_is_refused_before_training_and_never_hidden() -> None:
    student, teacher = torch.randn(2, 8, 5)
    student[0, 0] = float("nan")
    assert loss_of(student, teacher).isnan()
    with pytest.raises(UserError, match="the student's output holds NaN or infinity"):
        setup_method(CKD(), make_step(student, teacher))
