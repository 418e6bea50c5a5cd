"""DIST against the paper's equations, row by row, and where the official code must not be
followed."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import distill, gradient, linear_batch, linear_gradient, make_step
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import DIST, dist_loss

EXAMPLES: dict[str, Callable[[], Method]] = {"dist": DIST}
RANK_EXAMPLES: dict[str, Callable[[], Method]] = {
    "dist both": lambda: DIST(task_weight=0.0),
    "dist inter": lambda: DIST(task_weight=0.0, gamma=None),
    "dist intra": lambda: DIST(task_weight=0.0, beta=None, temperature=1.0),
}


def by_hand(student: Tensor, teacher: Tensor, temperature: float) -> tuple[float, float]:
    """Return T² (1 - mean correlation) of the rows and of the columns of both probabilities."""
    p, q = (
        (z / temperature).exp() / (z / temperature).exp().sum(1, keepdim=True)
        for z in (student, teacher)
    )
    losses = []
    for x, y in ((p, q), (p.T, q.T)):
        rows = zip(x.tolist(), y.tolist(), strict=True)
        correlations = [statistics.correlation(a, b) for a, b in rows]
        losses.append(temperature**2 * (1 - statistics.fmean(correlations)))
    return losses[0], losses[1]


def plain_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the sum of both relations as one writes them down, with 1e-8 under each fraction."""

    def relation(a: Tensor, b: Tensor) -> Tensor:
        a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    p, q = ((z / temperature).softmax(1) for z in (student, teacher))
    return temperature**2 * (relation(p, q) + relation(p.T, q.T))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(12, 7), (64, 100), (3, 30)])
def test_both_terms_are_the_papers(temperature: float, shape: tuple[int, int]) -> None:
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    terms = dist_loss(student, teacher, beta=2.0, gamma=3.0, temperature=temperature, eps=1e-30)
    inter, intra = by_hand(student, teacher, temperature)
    assert terms["inter"].item() == pytest.approx(2.0 * inter, rel=1e-10)
    assert terms["intra"].item() == pytest.approx(3.0 * intra, rel=1e-10)


def test_the_official_eps_is_the_default_and_the_official_form_the_same_where_it_is_sound() -> None:
    student, teacher = 3 * torch.randn(2, 32, 200, dtype=torch.float64)
    student.requires_grad_()
    actual = sum(dist_loss(student, teacher, beta=1.0, gamma=1.0, temperature=1.0).values())
    expected = plain_form(student, teacher, 1)
    assert torch.isclose(actual, expected, rtol=1e-12)
    assert torch.allclose(
        gradient(actual, student), gradient(expected, student), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize("name", ["inter", "intra"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: dist_loss(s, teacher, temperature=1.0)[name], student.requires_grad_()
    )


def test_probabilities_need_only_be_correlated() -> None:
    teacher = torch.randn(16, 10, dtype=torch.float64).softmax(1)
    student = (0.3 * teacher + 0.07).log()  # an affine map of every row, and of every column
    terms = dist_loss(student, teacher.log(), temperature=1.0)
    assert terms["inter"].item() == pytest.approx(0.0, abs=1e-6)
    assert terms["intra"].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "constant", ["zero classifier", "one item", "one class", "teacher", "both"]
)
def test_constant_rows_and_columns_give_finite_terms_and_no_gradient(
    dtype: torch.dtype, constant: str
) -> None:
    student, teacher = 3 * torch.randn(2, 8, 10).to(dtype)
    if constant == "zero classifier":
        student = torch.zeros_like(student) + 0.1
    elif constant == "one item":
        student[3] = 0.7
    elif constant == "one class":  # far below all others: probability 0 in every item
        student[:, 2], teacher[:, 2] = -1e4, -1e4
    elif constant == "teacher":
        teacher = torch.full_like(teacher, 0.3)
    else:
        student, teacher = torch.zeros_like(student), torch.zeros_like(teacher)
    student.requires_grad_()
    terms = dist_loss(student, teacher)
    slope = gradient(sum(terms.values()), student)
    assert all(term.isfinite() for term in terms.values())
    assert slope.isfinite().all()
    assert slope.abs().max() < 100
    if constant in ("zero classifier", "teacher", "both"):
        assert all(term == 2 * 16 for term in terms.values())
        assert (slope == 0).all()


def test_a_classifier_that_starts_at_zero_explodes_in_the_plain_form() -> None:
    student, teacher = torch.zeros(8, 10, requires_grad=True), 3 * torch.randn(8, 10)
    assert gradient(plain_form(student, teacher, 4.0), student).abs().max() > 1e5
    assert (gradient(sum(dist_loss(student, teacher).values()), student) == 0).all()


def test_large_gaps_and_half_precision_are_safe() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        student = torch.tensor([[0.0, 900.0, 1.0], [500.0, -500.0, 0.0]], dtype=dtype)
        teacher = torch.tensor([[900.0, 0.0, 1.0], [-500.0, 500.0, 0.0]], dtype=dtype)
        student.requires_grad_()
        terms = dist_loss(student, teacher)
        assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
        assert gradient(sum(terms.values()), student).isfinite().all()


def test_autocast_changes_nothing() -> None:
    student, teacher = torch.randn(2, 32, 10)
    exact = dist_loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = dist_loss(student, teacher)
    assert all(torch.equal(exact[name], inside[name]) for name in exact)


def test_maps_of_logits_are_rows_of_positions() -> None:
    student, teacher = torch.randn(2, 3, 5, 4, 2)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    terms, expected = dist_loss(student, teacher), dist_loss(*flat)
    assert all(torch.isclose(terms[name], expected[name]) for name in expected)


def test_a_weight_of_none_or_zero_is_off_and_two_classes_have_no_inter_relation() -> None:
    student, teacher = torch.randn(2, 8, 5)
    assert list(dist_loss(student, teacher, beta=None)) == ["intra"]
    assert list(dist_loss(student, teacher, gamma=0.0)) == ["inter"]
    assert list(dist_loss(student[:, :2], teacher[:, :2])) == ["intra"]


def test_the_terms_of_the_method_are_the_functions() -> None:
    student, teacher = torch.randn(2, 8, 5)
    options = {"beta": 1.0, "gamma": 3.0, "temperature": 2.0}
    terms = DIST(**options)(make_step(student, teacher))
    expected = dist_loss(student, teacher, **options)
    assert list(terms) == ["dist/inter", "dist/intra"]
    assert all(torch.equal(terms[f"dist/{name}"], value) for name, value in expected.items())


def test_only_the_relations_of_an_items_classes_are_the_same_in_each_share_of_the_batch() -> None:
    """Under DistributedDataParallel the official columns are those of each process alone."""
    images, labels = linear_batch()
    for name, make in RANK_EXAMPLES.items():
        whole = linear_gradient(make(), (images, labels))
        shares = [linear_gradient(make(), (images[r::2], labels[r::2])) for r in range(2)]
        assert torch.allclose(sum(shares) / 2, whole, rtol=1e-6) == (name == "dist inter"), name


def test_a_teacher_that_gives_nan_is_refused_before_training() -> None:
    teacher = nn.Linear(8, 3)
    nn.init.constant_(teacher.weight, float("nan"))
    batch = (torch.randn(4, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UserError, match="the teacher's output holds NaN or infinity"):
        distill(DIST(), student=nn.Linear(8, 3), teacher=teacher, batch=batch, num_classes=3)
    assert dist_loss(torch.full((4, 3), float("nan")), torch.randn(4, 3))["inter"].isnan()


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 5),
            r"got \(4, 3\) from the student and \(4, 5\) from the teacher",
        ),
        (torch.zeros(3), torch.zeros(3), "DIST needs logits"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "DIST needs logits"),
        (torch.zeros(4, 1), torch.zeros(4, 1), "two classes or more"),
        (
            torch.zeros(4, 3, dtype=torch.int64),
            torch.zeros(4, 3),
            r"torch.int64 and torch.float32; use .float",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dist_loss(student, teacher)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="the temperature of DIST must be positive, got 0"):
        DIST(temperature=0.0)
    with pytest.raises(UserError, match="the eps of DIST must be positive, got nan"):
        dist_loss(torch.zeros(4, 3), torch.zeros(4, 3), eps=float("nan"))


def test_weights_that_leave_nothing_are_refused_before_training() -> None:
    batch = torch.randn(6, 4), torch.tensor([0, 1] * 3)
    for method in (DIST(gamma=None), DIST(beta=0, gamma=0)):
        with pytest.raises(UserError, match="DIST has no term left with these weights"):
            distill(
                method,
                student=nn.Linear(4, 2),
                teacher=nn.Linear(4, 2),
                batch=batch,
                num_classes=2,
            )
