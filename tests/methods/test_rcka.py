"""RCKA against the numbers of the official code, and where that code must not be followed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.harness import LAYER_PAIRS, cases, make_step, setup_method, tensor
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import RCKA, rcka_feature_loss, rcka_loss
from tutelage.similarity import alignment

EXAMPLES: dict[str, Callable[[], Method]] = {
    "rcka": lambda: RCKA(LAYER_PAIRS),
    "rcka centered": lambda: RCKA(LAYER_PAIRS, center=True),
}
RANK_EXAMPLES: dict[str, Callable[[], Method]] = {
    "rcka logits": lambda: RCKA(task_weight=0.0, ramp=None),
    "rcka centered": lambda: RCKA({"0": "0"}, task_weight=0.0, center=True, ramp=None),
    "rcka normalized": lambda: RCKA({"0": "0"}, task_weight=0.0, gram="normalized", ramp=None),
}
CASES = cases("rcka_logits")


def official(case: dict[str, Any]) -> tuple[RCKA, float]:
    """Return our method with a case's settings, and what its value exceeds the official one by.

    The excess is the weight of every term. The official inter weight is a switch; the term has the
    intra weight.
    """
    settings = case["hyperparameters"]
    weight = settings["intra_weight"]
    inter_weight = weight if settings["inter_weight"] else None
    method = RCKA(
        intra_weight=weight,
        inter_weight=inter_weight,
        scale="rows" if settings["with_l2_norm"] else None,
        soften="intra" if settings.get("soften") else None,
        temperature=4.0,
        ramp=None,
    )
    return method, weight * (2 if inter_weight else 1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "value_error", "gradient_error"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 1e-5)],
)
def test_values_and_gradients_are_the_official_ones(
    name: str, dtype: torch.dtype, value_error: float, gradient_error: float
) -> None:
    student = tensor("rcka_logits", f"{name}_student", dtype).requires_grad_()
    teacher = tensor("rcka_logits", f"{name}_teacher", dtype)
    method, excess = official(CASES[name])
    loss = sum(method(make_step(student, teacher)).values())
    loss.backward()
    expected = tensor("rcka_logits", f"{name}_loss", torch.float64).item() + excess
    scale = 1 if dtype == torch.float64 else excess
    assert loss.item() == pytest.approx(expected, abs=value_error * scale)
    torch.testing.assert_close(
        student.grad.double(),
        tensor("rcka_logits", f"{name}_grad_student"),
        rtol=0,
        atol=gradient_error,
    )


@pytest.mark.parametrize("name", CASES)
def test_bf16_autocast_changes_little(name: str) -> None:
    student = tensor("rcka_logits", f"{name}_student", torch.float32).requires_grad_()
    teacher = tensor("rcka_logits", f"{name}_teacher", torch.float32)
    method, excess = official(CASES[name])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(method(make_step(student, teacher)).values())
    loss.backward()
    expected = tensor("rcka_logits", f"{name}_loss").item() + excess
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, abs=1e-2)
    torch.testing.assert_close(
        student.grad.double(), tensor("rcka_logits", f"{name}_grad_student"), rtol=0, atol=1e-2
    )


def test_inter_has_a_weight_of_its_own_and_each_term_its_own_name() -> None:
    student, teacher = torch.randn(2, 16, 10)
    terms = rcka_loss(student, teacher, intra_weight=2.0, inter_weight=3.0)
    assert list(terms) == ["intra", "inter"]
    intra = alignment(student, teacher, scale="rows")
    inter = alignment(student.T, teacher.T, scale="rows")
    assert torch.isclose(terms["intra"], 2.0 * (1 - intra))
    assert torch.isclose(terms["inter"], 3.0 * (1 - inter))
    for name, weights in (
        ("intra", {"intra_weight": 2.0, "inter_weight": None}),
        ("inter", {"intra_weight": 0.0, "inter_weight": 3.0}),
    ):
        single = rcka_loss(student, teacher, **weights)
        assert list(single) == [name]
        assert torch.isclose(single[name], terms[name], atol=1e-6)
    assert rcka_loss(student, teacher, intra_weight=None, inter_weight=None) == {}


def test_softening_reaches_what_it_says() -> None:
    # In float64: softened, 15 (1 - A) is small, and float32 rounds it to 15 eps.
    step = make_step(*torch.randn(2, 16, 10, dtype=torch.float64))
    raw, intra, both = (RCKA(soften=s, ramp=None)(step) for s in (None, "intra", "both"))
    assert torch.isclose(raw["rcka/inter"], intra["rcka/inter"], atol=1e-12)
    assert torch.isclose(intra["rcka/intra"], both["rcka/intra"], atol=1e-12)
    assert not torch.isclose(raw["rcka/intra"], intra["rcka/intra"])
    assert not torch.isclose(intra["rcka/inter"], both["rcka/inter"])


def test_softened_maps_are_softened_over_classes() -> None:
    student, teacher = torch.randn(2, 6, 5, 2, 2)
    soft = [(x / 3.0).softmax(1).flatten(1) for x in (student, teacher)]
    terms = rcka_loss(student, teacher, soften="both", temperature=3.0)
    for name, expected in rcka_loss(*soft).items():
        assert torch.equal(terms[name], expected)


def test_the_ramp_fades_in_the_logit_terms_only() -> None:
    student, teacher = torch.randn(2, 16, 10)
    method = RCKA({"a": "b"}, ramp=(0.3, 0.7))
    features = {
        "student_features": {"a": torch.randn(16, 3)},
        "teacher_features": {"b": torch.randn(16, 5)},
    }
    early, middle, late = (
        method(make_step(student, teacher, progress=progress, **features))
        for progress in (0.3, 0.5, 0.7)
    )
    assert early["rcka/intra"] == early["rcka/inter"] == 0
    assert torch.isclose(2 * middle["rcka/inter"], late["rcka/inter"])
    assert torch.equal(early["rcka/a"], late["rcka/a"])


def test_a_weight_of_none_or_zero_reads_no_logits_and_taps_no_layers() -> None:
    features = {
        "student_features": {"a": torch.randn(16, 3)},
        "teacher_features": {"b": torch.randn(16, 5)},
    }
    method = RCKA({"a": "b"}, intra_weight=None, inter_weight=0.0)
    assert list(method(make_step(None, None, **features))) == ["rcka/a"]
    method = RCKA({"a": "b"}, feature_weight=None)
    assert method.student_layers == method.teacher_layers == ()
    assert list(method(make_step(*torch.randn(2, 16, 10)))) == ["rcka/intra", "rcka/inter"]


def test_features_of_any_width_and_shape_are_related() -> None:
    student, teacher = torch.randn(8, 4, 3, 3), torch.randn(8, 50)
    expected = 1 - alignment(student.flatten(1), teacher)
    assert torch.isclose(rcka_feature_loss(student, teacher), expected)
    assert rcka_feature_loss(student, 3 * student.flatten(1)) == pytest.approx(0.0, abs=1e-6)


def normalized_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - A of the unit rows of both Grams, as the official feature term is described."""
    s, t = (x @ x.T for x in (student, teacher))
    s, t = (g / g.norm(dim=1, keepdim=True) for g in (s, t))
    k, l = s @ s.T, t @ t.T  # noqa: E741
    return 1 - (k * l).sum() / (k.norm() * l.norm())


def test_normalized_grams_are_the_official_form_and_carry_little_signal_after_relu() -> None:
    student, teacher = torch.randn(2, 12, 30, dtype=torch.float64)
    expected = normalized_by_hand(student, teacher)
    assert torch.isclose(rcka_feature_loss(student, teacher, gram="normalized"), expected)
    student, teacher = torch.randn(2, 64, 4096).relu()
    assert rcka_feature_loss(student, teacher, gram="normalized") < 1e-4
    assert rcka_feature_loss(student, teacher, center=True) > 1e-2


@pytest.mark.parametrize("offset", [0.0, 20.0, 1000.0])
def test_centering_survives_offsets_inside_autocast(offset: float) -> None:
    student, teacher = torch.randn(2, 64, 32)
    exact = rcka_feature_loss(student.double(), teacher.double(), center=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = rcka_feature_loss(student + offset, teacher + offset, center=True)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"scale": None}, {"scale": "rows"}, {"center": True}, {"estimator": "debiased"}],
    ids=str,
)
@pytest.mark.parametrize(
    "constant", ["zero student", "zero row", "constant student", "zero teacher"]
)
def test_dead_inputs_give_finite_terms_and_gradients(
    options: dict[str, Any], constant: str
) -> None:
    student, teacher = torch.randn(2, 8, 5)
    if constant == "zero student":
        student = torch.zeros_like(student)
    elif constant == "zero row":
        student[3] = 0
    elif constant == "constant student":
        student = torch.ones_like(student)
    else:
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    terms = rcka_loss(student, teacher, **{"scale": None, **options})
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(8, 5), torch.zeros(7, 5), r"got shapes \(7, 5\) and \(8, 5\)"),
        (
            torch.zeros(8, 5),
            torch.zeros(8, 6),
            "the inter alignment needs the same columns on both sides",
        ),
        (torch.zeros(1, 5), torch.zeros(1, 5), "at least 2 rows to relate"),
        (torch.zeros(0, 5), torch.zeros(0, 5), "at least 2 rows to relate"),
        (torch.zeros(8, 1), torch.zeros(8, 1), "at least 2 rows to relate"),
        (torch.zeros(8, 5, dtype=torch.int64), torch.zeros(8, 5), "floating-point"),
    ],
)
def test_inputs_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rcka_loss(student, teacher)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="gram is 'plain' or 'normalized', got 'cosine'"):
        rcka_feature_loss(torch.eye(4), torch.eye(4), gram="cosine")
    with pytest.raises(UserError, match="gram is 'plain' or 'normalized', got 'cosine'"):
        RCKA(gram="cosine")
    with pytest.raises(UserError, match="soften is None, 'intra' or 'both', got 'inter'"):
        RCKA(soften="inter")
    with pytest.raises(UserError, match="the temperature of RCKA must be positive, got 0"):
        RCKA(soften="both", temperature=0.0)
    with pytest.raises(
        UserError,
        match=r"ramp is \(start, stop\) with 0 <= start <= stop <= 1, got \(0.7, 0.3\)",
    ):
        RCKA(ramp=(0.7, 0.3))
    with pytest.raises(UserError, match="scale is None, 'rows' or 'cosine', got 'columns'"):
        RCKA(scale="columns")
    with pytest.raises(UserError, match="estimator is 'biased' or 'debiased', got 'exact'"):
        RCKA(estimator="exact")


def test_nan_is_refused_before_training_and_never_hidden() -> None:
    student, teacher = torch.randn(2, 8, 5)
    student[0, 0] = float("nan")
    assert rcka_loss(student, teacher)["intra"].isnan()
    with pytest.raises(UserError, match="the student's output holds NaN or infinity"):
        setup_method(RCKA(), make_step(student, teacher))


def test_two_classes_are_enough() -> None:
    student, teacher = torch.randn(2, 8, 2)
    assert all(term.isfinite() for term in rcka_loss(student, teacher).values())


@pytest.mark.parametrize("soften", [None, "both"])
def test_two_centered_classes_have_no_relation_between_them(soften: str | None) -> None:
    """Their centered kernel is always a multiple of the same matrix."""
    student, teacher = torch.randn(2, 8, 2)
    assert list(rcka_loss(student, teacher, center=True, soften=soften)) == ["intra"]
    assert list(rcka_loss(student, teacher, soften=soften)) == ["intra", "inter"]
    maps = torch.randn(2, 8, 2, 3, 3)
    assert "inter" in rcka_loss(*maps, center=True)


@pytest.mark.parametrize("center", [False, True])
def test_relations_of_probabilities_alone_see_a_rotation_of_the_logits(center: bool) -> None:
    """Why the recipes align probabilities: any rotated logits would do as well as the teacher's."""
    torch.manual_seed(0)
    teacher = 3 * torch.randn(32, 10, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))
    loss = partial(rcka_loss, teacher @ rotation, teacher, center=center, temperature=1.0)
    assert loss()["intra"] < 1e-9
    assert loss(soften="both")["intra"] > 1
