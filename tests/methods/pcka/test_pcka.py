"""PCKA against the numbers of the official code, and where that code must not be followed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import LAYER_PAIRS, cases, make_step, setup_method, tensor
from tutelage.core import CombinedMethod, Method, Step
from tutelage.errors import UserError
from tutelage.methods import FitNet
from tutelage.methods.pcka import PCKA, _blocks, pcka_loss

EXAMPLES: dict[str, Callable[[], Method]] = {
    "pcka": lambda: PCKA(LAYER_PAIRS, patch_size=4, inter_weight=10.0),
    "pcka centered": lambda: PCKA(LAYER_PAIRS, patch_size="auto", center=True, inter_weight=10.0),
}

CASES = cases("pcka")
OVER = {"": "channel", "_batch": "image", "_hw": "position"}


def official(case: dict[str, Any]) -> tuple[PCKA, float]:
    """Return our method with a case's settings, and by how much our value exceeds the official one.

    It is the weight of each term, as ours are w (1 - A) and the official ones -w A.
    """
    settings = case["hyperparameters"]
    weight = settings["intra_weight"]
    method = PCKA(
        {"a": "b"},
        intra_weight=weight,
        # A switch in the official code, where the weight is that of the intra term.
        inter_weight=weight if settings["inter_weight"] else None,
        scale="rows" if settings["with_l2_norm"] else None,
        over=OVER[case["cls"].removeprefix("CenterKernelAlignmentRKD")],
    )
    return method, weight * (2 if settings["inter_weight"] else 1)


def step_of(student: Tensor, teacher: Tensor) -> Step:
    return make_step(student_features={"a": student}, teacher_features={"b": teacher})


def set_up(student: Tensor, teacher: Tensor, **settings: Any) -> tuple[PCKA, Step]:
    step = step_of(student, teacher)
    return setup_method(PCKA({"a": "b"}, **settings), step), step


@pytest.fixture(params=[2**18, 1], ids=["one block", "a block for each matrix"])
def _blocks_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "CPU_BLOCK", request.param)


@pytest.mark.usefixtures("_blocks_of")
@pytest.mark.parametrize("through", ["blocks", "autograd"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "value_error", "gradient_error"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-4, 1e-5)],
)
def test_values_and_gradients_are_the_official_ones(
    name: str, through: str, dtype: torch.dtype, value_error: float, gradient_error: float
) -> None:
    student = tensor("pcka", f"{name}_student", dtype).requires_grad_()
    teacher = tensor("pcka", f"{name}_teacher", dtype).requires_grad_(through == "autograd")
    method, shift = official(CASES[name])
    setup_method(method, step_of(student.detach(), teacher.detach()))
    loss = sum(method(step_of(student, teacher)).values())
    loss.backward()
    expected = tensor("pcka", f"{name}_loss").item() + shift
    assert loss.item() == pytest.approx(expected, abs=value_error)
    expected_gradient = tensor("pcka", f"{name}_grad_student")
    assert torch.allclose(student.grad.double(), expected_gradient, rtol=0, atol=gradient_error)


@pytest.mark.parametrize("name", CASES)
def test_bf16_autocast_changes_nothing_for_float32_maps(name: str) -> None:
    student = tensor("pcka", f"{name}_student", torch.float32)
    teacher = tensor("pcka", f"{name}_teacher", torch.float32)
    method, _ = official(CASES[name])
    setup_method(method, step_of(student, teacher))
    student.requires_grad_()
    exact = sum(method(step_of(student, teacher)).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(method(step_of(student, teacher)).values())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, exact)
    gradients = [torch.autograd.grad(value, student)[0] for value in (loss, exact)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [32, 33])
def test_half_precision_maps_are_related_in_float32(dtype: torch.dtype, size: int) -> None:
    maps = 300 * torch.randn(2, 2, 4, size, size)  # fp16 squares of these overflow
    student, teacher = maps.to(dtype)
    exact = pcka_loss(student.double().requires_grad_(), teacher.double(), inter_weight=10.0)
    student.requires_grad_()
    terms = pcka_loss(student, teacher, inter_weight=10.0)
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), abs=1e-4)
    sum(terms.values()).backward()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_scale_does_not_matter(factor: float) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    terms = pcka_loss(student, teacher, inter_weight=10.0)
    scaled = (factor * student).requires_grad_()
    for name, value in pcka_loss(scaled, teacher / factor, inter_weight=10.0).items():
        assert value.item() == pytest.approx(terms[name].item(), abs=1e-5)

    def gradient_of(maps: Tensor) -> Tensor:
        loss = sum(pcka_loss(maps, teacher, inter_weight=10.0).values())
        return torch.autograd.grad(loss, maps)[0]

    expected = gradient_of(student.requires_grad_())
    assert torch.allclose(gradient_of(scaled) * factor, expected, rtol=1e-3, atol=1e-7)


def test_inter_has_a_weight_of_its_own_and_each_term_its_own_name() -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    step = step_of(student, teacher)
    first = set_up(student, teacher, intra_weight=10.0, inter_weight=10.0)[0](step)
    second = set_up(student, teacher, intra_weight=10.0, inter_weight=3.0)[0](step)
    assert list(first) == ["pcka/intra/a", "pcka/inter/a"]
    assert torch.equal(first["pcka/intra/a"], second["pcka/intra/a"])
    assert torch.isclose(0.3 * first["pcka/inter/a"], second["pcka/inter/a"])
    # None, and 0, are off.
    assert list(set_up(student, teacher)[0](step)) == ["pcka/intra/a"]
    inter_only, _ = set_up(student, teacher, intra_weight=0.0, inter_weight=1.0)
    assert list(inter_only(step)) == ["pcka/inter/a"]


# ---- what setup finds ----


@pytest.mark.parametrize("scale", [None, "rows"])
@pytest.mark.parametrize("size", [(16, 16), (8, 8), (10, 10), (1, 1)])
def test_one_patch_is_named_before_training(size: tuple[int, int], scale: str | None) -> None:
    maps = torch.randn(2, 3, *size)
    message = (
        rf"PCKA of a → b: a map of {size[0]}×{size[1]} gives 1 patches of 16×16"
        r".*set patch_size='auto'"
    )
    with pytest.raises(UserError, match=message):
        set_up(maps, maps, scale=scale)
    with pytest.raises(UserError, match="gives 1 patches of 16×16"):
        pcka_loss(maps, maps)


@pytest.mark.parametrize("inter_weight", [None, 10.0])
def test_a_later_batch_of_one_patch_adds_nothing_under_the_same_names(
    inter_weight: float | None,
) -> None:
    method, step = set_up(
        torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32), inter_weight=inter_weight
    )
    small = torch.randn(2, 3, 16, 16, requires_grad=True)
    terms = method(step_of(small, torch.randn(2, 5, 16, 16)))
    assert list(terms) == list(method(step))
    terms["pcka/intra/a"].backward(retain_graph=True)
    assert terms["pcka/intra/a"] == 0
    assert small.grad.abs().max() == 0
    # Reached, as data-parallel training wants.
    assert method.projections[0].weight.grad.abs().max() == 0
    assert inter_weight is None or terms["pcka/inter/a"] > 0


@pytest.mark.parametrize(
    "settings",
    [{}, {"scale": "rows"}, {"inter_weight": 10.0}, {"center": True}, {"over": "image"}],
)
def test_a_teacher_that_is_dead_everywhere_is_named_before_training_and_harmless_later(
    settings: Any,
) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    with pytest.raises(
        UserError, match=r"PCKA of a → b: the teacher's map is dead in every (channel|image)"
    ):
        set_up(student, torch.zeros_like(teacher), **settings)
    method, _ = set_up(student, teacher, **settings)
    terms = method(step_of(student.requires_grad_(), torch.zeros_like(teacher)))
    sum(terms.values()).backward()
    assert all(term == 0 for term in terms.values())
    assert student.grad.abs().max() == 0


def test_dead_channels_leave_the_mean_of_the_method_and_no_state() -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    teacher[:, 1] = 0
    method, step = set_up(student, teacher, inter_weight=10.0)
    before = pickle.dumps(method)
    terms = method(step)
    expected = pcka_loss(student[:, ::2], teacher[:, ::2], inter_weight=10.0)
    for name, value in expected.items():
        assert torch.isclose(terms[f"pcka/{name}/a"], value, atol=1e-5)
    assert pickle.dumps(method) == before


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="PCKA needs at least one pair of layers, such as"):
        PCKA({})
    with pytest.raises(UserError, match="PCKA needs a weight"):
        PCKA({"a": "b"}, intra_weight=None)
    with pytest.raises(UserError, match=r"scale is .*, got 'columns'"):
        PCKA({"a": "b"}, scale="columns")
    with pytest.raises(UserError, match=r"estimator is .*, got 'unbiased'"):
        PCKA({"a": "b"}, estimator="unbiased")
    maps = torch.randn(2, 3, 16, 48)
    for wrong in ({"scale": "columns"}, {"estimator": "unbiased"}):
        with pytest.raises(UserError, match=r"columns|unbiased"):
            pcka_loss(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32), **wrong)
    with pytest.raises(UserError, match="fewer than the 4 that are needed"):
        set_up(maps, maps, estimator="debiased")


@pytest.mark.parametrize("side", [0, 1])
def test_nan_is_refused_before_training_and_never_hidden(side: int) -> None:
    maps = torch.randn(2, 2, 3, 32, 32)
    maps[side, 0, 0, 0, 0] = float("nan")
    assert pcka_loss(*maps)["intra"].isnan()
    with pytest.raises(UserError, match=r"feature '[ab]' holds NaN or infinity"):
        set_up(*maps)


# ---- projections, other methods, several processes ----


def test_a_projection_is_built_once_and_trained() -> None:
    method, step = set_up(torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32), inter_weight=10.0)
    assert isinstance(method.projections[0], nn.Conv2d)
    first, second = (torch.stack(list(method(step).values())) for _ in range(2))
    assert torch.equal(first, second)  # the official one is made anew in every step
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    first.sum().backward()
    optimizer.step()
    assert sum(method(step).values()) < first.sum()
    assert not list(set_up(*torch.randn(2, 2, 3, 32, 32))[0].parameters())


def test_a_projection_has_the_precision_of_a_float64_student() -> None:
    maps = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    method, step = set_up(maps, torch.randn(2, 5, 32, 32, dtype=torch.float64))
    assert method.projections[0].weight.dtype == torch.float64
    assert method(step)["pcka/intra/a"].dtype == torch.float64


def test_it_composes_with_fitnet() -> None:
    step = step_of(torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32))
    both = CombinedMethod([PCKA({"a": "b"}, inter_weight=10.0), FitNet({"a": "b"})])
    setup_method(both, step)
    terms = both(step)
    assert list(terms) == ["pcka/intra/a", "pcka/inter/a", "fitnet/a"]
    sum(terms.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in both.parameters())


@pytest.mark.parametrize(("over", "same"), [("image", True), ("channel", False)])
def test_what_several_processes_compute(over: str, same: bool) -> None:
    """Each relates its own images: only over images is that the loss of the joined batch."""
    student, teacher = torch.randn(2, 4, 3, 32, 32)
    joined = pcka_loss(student, teacher, over=over)["intra"]
    first = pcka_loss(student[:2], teacher[:2], over=over)["intra"]
    second = pcka_loss(student[2:], teacher[2:], over=over)["intra"]
    assert torch.isclose(joined, (first + second) / 2, rtol=1e-4) == same
