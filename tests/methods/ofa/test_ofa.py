"""OFA-KD against the numbers of the official code, and on networks that are really unlike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import (
    ZOO,
    listed,
    make_step,
    mixer,
    resnet,
    setup_method,
    swin,
    tensor,
    vit,
)
from tutelage.core import Distiller, FrozenTeacher, Method
from tutelage.core.normalization import normalize_inputs
from tutelage.errors import UserError
from tutelage.methods import OFA, kd_loss, ofa_loss
from tutelage.methods.ofa.branches import exit_branch
from tutelage.methods.ofa.layout import feature_layout
from tutelage.models import small_cnn
from tutelage.tasks import Classification

EXAMPLES: dict[str, Callable[[], Method]] = {
    "ofa": OFA,
    "ofa branches": lambda: OFA({"stage1": 2, "stage2": 3, "stage3": 4}, gamma=1.3),
}


def case_inputs(
    case: Mapping[str, Any], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a case's student logits (a leaf), teacher logits and labels."""
    key = f"case{case['case']}_"
    student = tensor("ofa", f"{key}student_logits", dtype).requires_grad_()
    teacher = tensor("ofa", f"{key}teacher_logits", dtype)
    return student, teacher, tensor("ofa", f"{key}targets", torch.int64)


def official(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return the official form, from the specification's description of it."""
    mask = F.one_hot(labels, student.shape[1])
    weights = (teacher.softmax(1) + mask) ** gamma - mask
    return -(weights * student.softmax(1).log()).sum(1).mean()


@pytest.mark.parametrize("case", listed("ofa", "ofa_loss"), ids=lambda case: str(case["case"]))
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-7)]
)
def test_value_and_gradient_are_the_official_ones(
    case: dict[str, Any], dtype: torch.dtype, rtol: float, atol: float
) -> None:
    student, teacher, labels = case_inputs(case, dtype)
    loss = ofa_loss(student, teacher, labels, gamma=case["eps"], temperature=case["temperature"])
    loss.backward()
    assert loss.dtype == dtype
    key = f"case{case['case']}_"
    expected = tensor("ofa", f"{key}loss", dtype)
    torch.testing.assert_close(loss.detach(), expected, rtol=rtol, atol=atol)
    expected = tensor("ofa", f"{key}grad_student", dtype)
    torch.testing.assert_close(student.grad, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", listed("ofa", "composite"), ids=lambda case: str(case["case"]))
def test_the_whole_loss_is_the_official_one(case: dict[str, Any]) -> None:
    key = f"case{case['case']}_"
    student, teacher, labels = case_inputs(case)
    numbers = case["stages"]
    features = {f"s{k}": tensor("ofa", f"{key}branch{k}_logits").requires_grad_() for k in numbers}
    gamma = case["eps_expanded"] if len(set(case["eps_expanded"])) > 1 else case["eps_expanded"][0]
    method = OFA(
        {f"s{k}": k for k in numbers},
        gamma=gamma,
        temperature=case["temperature"],
        weight=case["kd_loss_weight"],
        branch_weight=case["ofa_loss_weight"],
    )
    method.branches = nn.ModuleList(nn.Identity() for _ in numbers)
    terms = method(make_step(student, teacher, labels, student_features=features))
    smoothing = 0.1 if "Smoothing" in case["criterion"] else 0.0
    supervised = method.task_weight * F.cross_entropy(student, labels, label_smoothing=smoothing)
    total = supervised + sum(terms.values())
    total.backward()
    losses = {
        "loss_gt": supervised,
        "loss_kd": terms["ofa"],
        "loss_ofa": sum(terms[f"ofa/s{k}"] for k in numbers),
        "loss": total,
    }
    for name, value in losses.items():
        expected = tensor("ofa", key + name)
        torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-12)
    expected = tensor("ofa", f"{key}grad_student")
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-12)
    for k in numbers:
        expected = tensor("ofa", f"{key}grad_branch{k}")
        torch.testing.assert_close(features[f"s{k}"].grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", listed("ofa", "non-finite"), ids=lambda case: str(case["case"]))
def test_it_is_right_where_the_official_code_is_not_finite(case: dict[str, Any]) -> None:
    key = f"case{case['case']}_"
    student, teacher, labels = case_inputs(case, torch.float32)
    loss = ofa_loss(student, teacher, labels, gamma=case["eps"], temperature=case["temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(tensor("ofa", f"{key}loss").item(), rel=1e-5)
    expected = tensor("ofa", f"{key}grad_student", torch.float32)
    torch.testing.assert_close(student.grad, expected, rtol=1e-5, atol=1e-7)
    assert not tensor("ofa", f"{key}official_loss_f32").isfinite()
    assert not official(student, teacher, labels, case["eps"]).isfinite()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_gaps_of_a_thousand_are_safe(dtype: torch.dtype, gamma: float) -> None:
    student = torch.tensor([[0.0, 1000.0, -1000.0], [500.0, -500.0, 0.0]], dtype=dtype)
    student.requires_grad_()
    teacher = torch.tensor([[1000.0, 0.0, -1000.0], [-500.0, 500.0, 0.0]], dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ofa_loss(student, teacher, torch.tensor([0, 2]), gamma=gamma)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.item() == pytest.approx((1000 * (2**gamma - 1) + 1000) / 2, rel=1e-3)
    assert student.grad.isfinite().all()


def test_gamma_1_has_the_gradient_of_plain_distillation() -> None:
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64).unbind()
    for_ofa, for_kd = student.clone().requires_grad_(), student.clone().requires_grad_()
    ofa_loss(for_ofa, teacher, torch.arange(8) % 5, gamma=1.0).backward()
    kd_loss(for_kd, teacher, temperature=1.0).backward()
    torch.testing.assert_close(for_ofa.grad, for_kd.grad, rtol=0, atol=1e-14)


def test_there_is_no_factor_of_the_squared_temperature() -> None:
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    divided = ofa_loss(student / 4, teacher / 4, labels, gamma=1.3)
    assert torch.allclose(ofa_loss(student, teacher, labels, gamma=1.3, temperature=4.0), divided)


def test_the_optimum_has_the_normalized_weights_as_probabilities_and_a_loss_above_zero() -> None:
    teacher, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    mask = F.one_hot(labels, 5)
    best = ((teacher.softmax(1) + mask) ** 1.4 - mask).log().requires_grad_()
    loss = ofa_loss(best, teacher, labels, gamma=1.4)
    loss.backward()
    assert loss.item() > 0.1
    assert best.grad.abs().max().item() == pytest.approx(0.0, abs=1e-14)
    student = torch.randn(6, 5, dtype=torch.float64)
    assert ofa_loss(student, teacher, labels, gamma=1.4) > loss


def test_soft_labels_count_by_their_first_maximum() -> None:
    student, teacher = torch.randn(2, 3, 4)
    soft = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.4, 0.1, 0.4, 0.1], [0.0, 0.0, 0.0, 1.0]])
    expected = ofa_loss(student, teacher, torch.tensor([1, 0, 3]), gamma=1.5)
    assert torch.equal(ofa_loss(student, teacher, soft, gamma=1.5), expected)


def test_items_without_a_label_are_left_out() -> None:
    student, teacher = torch.randn(2, 4, 5)
    student.requires_grad_()
    some = ofa_loss(student, teacher, torch.tensor([1, -100, 2, -100]), gamma=1.5)
    expected = ofa_loss(student[::2], teacher[::2], torch.tensor([1, 2]), gamma=1.5)
    assert torch.allclose(some, expected)
    none = ofa_loss(student, teacher, torch.full((4,), -100), gamma=1.5)
    none.backward()
    assert none.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on the meta device has no values: whatever would have to wait for them raises."""
    # The meta device has no autocast to switch off.
    monkeypatch.setattr("tutelage.methods.ofa.ofa.full_precision", lambda device: nullcontext())
    student, teacher = torch.empty(2, 4, 5, device="meta")
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    features = {"a": torch.empty(4, 6, 9, 9, device="meta")}
    with torch.device("meta"):
        method = OFA({"a": 3})
        method.branches = nn.ModuleList([exit_branch(feature_layout(features["a"], "a"), 3, 6, 5)])
        terms = method(make_step(student, teacher, labels, student_features=features))
    assert {name: tuple(value.shape) for name, value in terms.items()} == {"ofa": (), "ofa/a": ()}


BLOCKS = {f"blocks.{k}": k + 1 for k in range(4)}
LAYERS = {f"layers.{k}": k + 1 for k in range(4)}
STAGES = {f"layer{k}": k for k in range(1, 5)}
STUDENTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "cnn": (resnet, {"stages": STAGES, "width": 32}),
    "vit": (vit, {"stages": BLOCKS, "prefix_tokens": 1}),
    "vit with registers": (lambda: vit(reg_tokens=3), {"stages": BLOCKS, "prefix_tokens": 4}),
    "wide vit": (
        lambda: vit((32, 56), class_token=False, global_pool="avg"),
        {"stages": BLOCKS, "grid": (4, 7)},
    ),
    "mixer": (mixer, {"stages": BLOCKS}),
    "swin": (swin, {"stages": LAYERS, "layout": "NHWC"}),
}
PAIRS = [(s, t) for s in STUDENTS for t in ZOO if t not in s and "wide" not in s]
PAIRS.append(("wide vit", "cnn"))  # the other teachers take square images only


@pytest.mark.parametrize(("student_name", "teacher_name"), PAIRS)
def test_unlike_networks_learn_from_each_other(student_name: str, teacher_name: str) -> None:
    make_student, settings = STUDENTS[student_name]
    student, teacher = make_student(), ZOO[teacher_name]()
    names_before = set(student.state_dict())
    method = OFA(gamma=[1.1, 1.2, 1.3, 1.4, 1.5], **settings)
    distiller = Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=7))
    colors = torch.linspace(0, 1, 6).view(6, 1, 1, 1) + torch.randn(6, 3, 1, 1)
    images = colors + 0.1 * torch.rand(6, 3, 32, 56 if "wide" in student_name else 32)
    batch = (images, torch.tensor([0, 1, 2, 3, -100, 6]))
    distiller.setup(batch)
    assert len(method.branches) == 4
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)
    values = []
    for _ in range(15):
        terms = distiller(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        values.append({name: term.item() for name, term in terms.items()})
    assert list(values[0]) == ["task", "ofa", *(f"ofa/{layer}" for layer in settings["stages"])]
    for name, value in values[0].items():
        # An untrained teacher may pull the student's own logits off the labels: not "ofa".
        assert name == "ofa" or values[-1][name] < value, name
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in teacher.parameters())
    deployed = distiller.deploy()
    assert deployed is student
    assert set(deployed.state_dict()) == names_before
    assert any(key.startswith("method.branches") for key in distiller.state_dict())


def test_each_network_keeps_its_own_normalization() -> None:
    student = normalize_inputs(vit(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    teacher = normalize_inputs(resnet(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    method = OFA(BLOCKS, prefix_tokens=1)
    distiller = Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=7))
    images = torch.rand(4, 3, 32, 32)
    inputs: list[Tensor] = []
    handle = teacher.conv1.register_forward_hook(lambda module, args, _: inputs.append(args[0]))
    distiller.setup((images, torch.tensor([0, 1, 2, 3])))
    handle.remove()
    assert torch.allclose(inputs[0], (images - 0.5) / 0.5)


def test_without_stages_only_the_students_own_logits_are_taught() -> None:
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    step = make_step(student, teacher, labels)
    method = setup_method(OFA(gamma=1.2, weight=0.5), step)
    terms = method(step)
    assert list(terms) == ["ofa"]
    assert torch.equal(terms["ofa"], 0.5 * ofa_loss(student, teacher, labels, gamma=1.2))
    assert not list(method.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "labels", "message"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 5),
            torch.zeros(4).long(),
            r"got \(4, 3\) from the student",
        ),
        (
            torch.zeros(4, 3).long(),
            torch.zeros(4, 3),
            torch.zeros(4).long(),
            "got torch.int64 and torch.float32",
        ),
        (
            torch.zeros(4, 3, 2),
            torch.zeros(4, 3, 2),
            torch.zeros(4).long(),
            r"needs logits \(N, C\)",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 3),
            torch.zeros(4, 2),
            r"needs labels .* got \(4, 2\)",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 3),
            torch.tensor([0, 1, 2, 3]),
            "the label 3 is none of the 3 classes",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 3),
            torch.tensor([0, 1, 2, -1]),
            "the label -1 is none of the 3 classes",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    student: Tensor, teacher: Tensor, labels: Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ofa_loss(student, teacher, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 0.0}, "the gamma of OFA must be positive, got 0.0"),
        ({"temperature": -1.0}, "the temperature of OFA must be positive, got -1.0"),
    ],
)
def test_numbers_that_are_not_positive_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ofa_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4).long(), **settings)
    with pytest.raises(UserError, match=message):
        OFA(**settings)


@pytest.mark.parametrize(
    ("stages", "settings", "message"),
    [
        (
            {"a": 1, "b": 2},
            {"gamma": [1.0, 1.1]},
            "takes one gamma, or 3: one a stage and one for the logits; got 2",
        ),
        ({"a": 5}, {}, r"from 1 to 4, its last, by layer; got \{'a': 5\}"),
        (None, {"gamma": [0.0]}, "must be positive"),
        (["layer1", "layer2"], {}, "by layer; got"),
        ("layer1", {}, "by layer; got"),
        ({"layer1": 1.0}, {}, "by layer; got"),
        ({"a": 4}, {"width": -3}, "a number of channels, or None; got -3"),
        ({"a": 4}, {"width": 3.5}, "a number of channels, or None; got 3.5"),
        ({"a": 4}, {"layout": "banana"}, "got 'banana'"),
        ({"a": 4}, {"prefix_tokens": -1}, "counts the tokens before the patch tokens; got -1"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    stages: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        OFA(stages, **settings)


def test_one_gamma_is_that_of_all_losses() -> None:
    assert OFA({"a": 1, "b": 2}, gamma=[1.5])._gammas() == [1.5] * 3


def test_stages_that_do_not_fit_are_named() -> None:
    student, teacher = small_cnn(width=8), FrozenTeacher(small_cnn())
    task = Classification(num_classes=10)
    batch = torch.rand(4, 1, 28, 28), torch.arange(4)
    with pytest.raises(UserError, match=r"no module 'stage4' in SmallCNN; did you mean \['stage3'"):
        Distiller(student, teacher, OFA({"stage4": 4}), task)
    distiller = Distiller(student, teacher, OFA({"stage3": 4}, prefix_tokens=1), task)
    message = r"describe tokens \(N, L, D\), but the stages give .*'stage3'"
    with pytest.raises(UserError, match=message):
        distiller.setup(batch)
    distiller = Distiller(student, teacher, OFA({"stage3": 4}), task)
    with pytest.raises(UserError, match="the exit branches are not built yet"):
        distiller(batch)


def test_logits_that_are_not_finite_are_named() -> None:
    student, teacher = torch.zeros(2, 3), torch.full((2, 3), torch.nan)
    with pytest.raises(UserError, match="the teacher's output holds NaN"):
        setup_method(OFA(), make_step(student, teacher, torch.tensor([0, 1])))
