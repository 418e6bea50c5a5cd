"""Residual distillation against the numbers of our formulas, its budget, and what is shipped."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tests.runs import make_recipe
from tests.vectors import FOLDER, cases, tensor
from tutelage import Absent, Classification, Distiller, Network, Output, ResidualKD, Step, Together, UserError
from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.engine import Student, TeacherNetwork, fit
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.weights import load_weights
from tutelage.methods import residual_kd_loss
from tutelage.methods.budget import Budget, cost, split
from tutelage.methods.narrow import narrow
from tutelage.methods.residual_head import Joint
from tutelage.methods.residual_loss import error_removed, feature_distance, residuals
from tutelage.methods.residual_pair import ResidualPair
from tutelage.methods.residual_scheme import Scheme
from tutelage.models import cifar_resnet, mobilenet_v2, shufflenet_v1, small_cnn, vgg8, wrn_16_2

CASES = cases("residual_kd")
FULL = [name for name in CASES if "adapter" in CASES[name]]
LAST = {"stage3": "stage3"}
STAGEWISE = Scheme("stagewise", phases=(0.3, 0.6))


def vector(name: str, key: str) -> Tensor:
    return tensor("residual_kd", f"{name}_{key}")


def features(name: str) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return f_S and f_A as leaves, and f_T."""
    count = CASES[name].get("n_assistants", 1)
    assistants = [vector(name, f"a{k}").requires_grad_() for k in range(count)]
    return vector(name, "s").requires_grad_(), assistants, vector(name, "t")


def images(count: int = 12, size: int = 28) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, size, size, generator=generator), torch.randint(10, (count,), generator=generator)


def distil(method: ResidualKD, width: int = 8, size: int = 28) -> Distiller:
    torch.manual_seed(0)
    teacher = Network(small_cnn(width=12))
    student = normalize_inputs(small_cnn(width=width), [0.3], [0.2])
    distiller = Distiller(method.grow(student, teacher), teacher, method, Classification(num_classes=10))
    distiller.setup(images(size=size))
    return distiller


def run(distiller: Distiller, steps: int, start: float = 0.0, stop: float = 1.0) -> None:
    optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        sum(distiller.train()(images(), start + (stop - start) * step / steps).values()).backward()
        optimizer.step()


def gradients(term: Tensor, module: nn.Module) -> float:
    found = torch.autograd.grad(term, list(module.parameters()), allow_unused=True, retain_graph=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


# The formulas


@pytest.mark.parametrize("name", FULL)
def test_losses_and_gradients_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    losses = residual_kd_loss(student, assistants, teacher)
    assert losses["student"].item() == pytest.approx(vector(name, "loss_S_mse").item(), abs=1e-12)
    assert losses["assistant"].item() == pytest.approx(vector(name, "loss_A_mse_list").sum().item(), abs=1e-12)
    (one,) = torch.autograd.grad(losses["student"], student)
    (two,) = torch.autograd.grad(losses["assistant"], assistants[0])
    assert torch.allclose(one, vector(name, "grad_S_of_loss_S"), rtol=0, atol=1e-12)
    assert torch.allclose(two, vector(name, "grad_A0_of_loss_A"), rtol=0, atol=1e-12)
    targets = residuals(student, assistants, teacher)
    for k, (target, each) in enumerate(zip(targets, vector(name, "loss_A_mse_list"), strict=True)):
        assert torch.allclose(target, vector(name, f"residual_target{k}"), rtol=0, atol=1e-12)
        assert feature_distance(assistants[k], target).item() == pytest.approx(each.item(), abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_joined_feature_and_its_loss_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    combined = residual_kd_loss(student, assistants, teacher, end_to_end=True)["combined"]
    assert combined.item() == pytest.approx(CASES[name]["loss_combined_mse"], abs=1e-12)
    assert torch.allclose(student + sum(assistants), vector(name, "combined"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FULL)
def test_attention_distances_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    if teacher.ndim == 2 or teacher.shape[2] * teacher.shape[3] == 1:
        with pytest.raises(UserError, match="is always 0"):
            feature_distance(student, teacher, "attention")
        return
    losses = residual_kd_loss(student, assistants, teacher, "attention", end_to_end=True)
    assert losses["student"].item() == pytest.approx(vector(name, "loss_S_at").item(), abs=1e-12)
    assert losses["combined"].item() == pytest.approx(vector(name, "loss_combined_at").item(), abs=1e-12)
    if len(assistants) == 1:
        detached = residual_kd_loss(student, assistants, teacher, "attention")["assistant"]
        assert detached.item() == pytest.approx(losses["combined"].item(), abs=1e-15)
        assert torch.autograd.grad(detached, student, allow_unused=True, retain_graph=True) == (None,)
        mine, theirs = (
            torch.autograd.grad(x, assistants, retain_graph=True)[0] for x in (detached, losses["combined"])
        )
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in FULL if CASES[name]["adapter"] != "identity"])
def test_adapters_are_one_by_one_convolutions_with_bias(name: str) -> None:
    raw = [vector(name, "s_raw"), *(vector(name, f"a{k}_raw") for k in range(CASES[name]["n_assistants"]))]
    adapters = []
    for key in ("s", *(f"a{k}" for k in range(CASES[name]["n_assistants"]))):
        weight = vector(name, f"{key}_w")
        adapter = nn.Linear(weight.shape[1], weight.shape[0]).double()
        adapter.load_state_dict({"weight": weight, "bias": vector(name, f"{key}_b")})
        adapters.append(adapter)
    head = Joint([adapters], nn.Linear(vector(name, "t").shape[1], 3).double())
    student, assistants, _ = features(name)
    for found, expected in zip(head.features(raw), (student, *assistants), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    pooled = [x.mean((2, 3)) for x in raw]
    expected = head.classifier((student + sum(assistants)).mean((2, 3)))
    assert torch.allclose(head(pooled), expected, rtol=0, atol=1e-12)
    folded = sum(head.linear(i)(z) for i, z in enumerate(pooled))
    assert torch.equal(head(pooled), torch.stack([head.linear(i)(z) for i, z in enumerate(pooled)]).sum(0))
    assert torch.allclose(folded, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FULL)
def test_an_assistant_on_a_detached_residual_and_end_to_end_differ_in_who_is_moved(name: str) -> None:
    student, assistants, teacher = features(name)
    if len(assistants) > 1:
        return
    losses = residual_kd_loss(student, assistants, teacher)
    combined = residual_kd_loss(student, assistants, teacher, end_to_end=True)["combined"]
    assert losses["assistant"].item() == pytest.approx(combined.item(), abs=1e-14)
    assert torch.autograd.grad(losses["assistant"], student, allow_unused=True, retain_graph=True) == (None,)
    theirs = torch.autograd.grad(combined, [student, assistants[0]])
    assert torch.allclose(theirs[0], theirs[1], rtol=0, atol=1e-15)
    assert torch.allclose(theirs[1], torch.autograd.grad(losses["assistant"], assistants[0])[0], rtol=0, atol=1e-15)


def test_a_target_that_is_not_detached_would_train_the_student_twice() -> None:
    """The trap: with f_A = 0 the assistant's loss is then the student's a second time."""
    student, assistant, teacher = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    student.requires_grad_()
    wrong = F.mse_loss(torch.zeros_like(assistant), teacher - student)
    (twice,) = torch.autograd.grad(wrong, student)
    losses = residual_kd_loss(student, [torch.zeros_like(assistant).requires_grad_()], teacher)
    (once,) = torch.autograd.grad(losses["student"], student, retain_graph=True)
    assert torch.allclose(once, twice)
    assert torch.autograd.grad(losses["assistant"], student, allow_unused=True) == (None,)


def test_later_assistants_fit_what_the_earlier_ones_left_and_move_none_of_them() -> None:
    student, one, two, teacher = torch.randn(4, 2, 4, 5, 5, dtype=torch.float64).unbind(0)
    leaves = [student.requires_grad_(), one.requires_grad_(), two.requires_grad_()]
    loss = residual_kd_loss(student, [one, two], teacher)["assistant"]
    expected = F.mse_loss(one, teacher - student) + F.mse_loss(two, teacher - student - one)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-14)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert found[0] is None
    assert torch.allclose(found[1], 2 * (one - (teacher - student)).detach() / one.numel())
    assert torch.allclose(found[2], 2 * (two - (teacher - student - one)).detach() / one.numel())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_residuals_of_large_features_survive_autocast(dtype: torch.dtype) -> None:
    teacher = torch.full((4, 8, 4, 4), 100.0)
    head = Joint([[nn.Linear(8, 8), nn.Linear(8, 8)]], nn.Linear(8, 3))
    nn.init.eye_(head.adapters[0][0].weight)
    nn.init.zeros_(head.adapters[0][0].bias)
    nn.init.zeros_(head.adapters[0][1].weight)
    nn.init.constant_(head.adapters[0][1].bias, 0.0105)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student, assistant = head.features([teacher - 0.0105, teacher.to(dtype)])
        losses = residual_kd_loss(student, [assistant], teacher)
    assert student.dtype == losses["assistant"].dtype == torch.float32
    assert losses["student"].item() == pytest.approx(0.0105**2, rel=1e-2)
    assert losses["assistant"].item() < 1e-8


def test_the_share_of_the_error_that_was_removed() -> None:
    """Logged instead of L_A and L_C side by side, which are one number with mse."""
    teacher, student = torch.randn(2, 3, 4, 5, 5)
    assert error_removed(student, [teacher - student], teacher) == pytest.approx(1.0)
    assert error_removed(student, [torch.zeros_like(student)], teacher) == pytest.approx(0.0)
    assert error_removed(student, [student - teacher], teacher) == pytest.approx(-3.0)
    names = set(distil(ResidualKD(LAST))(images()))
    assert names == {"task", "residual_kd.student.stage3", "residual_kd.assistant.stage3", "residual_kd.alone"}
    names = set(distil(ResidualKD(LAST, scheme=Scheme("end_to_end")))(images()))
    assert names == {"task", "residual_kd.student.stage3", "residual_kd.combined.stage3", "residual_kd.alone"}


def test_the_attention_distance_is_blind_to_sign_so_the_teachers_head_may_not_stay() -> None:
    f = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert feature_distance(f, -f, "attention") == 0
    assert feature_distance(f, f[:, [2, 0, 3, 1]], "attention") < 1e-30
    with pytest.raises(UserError, match="train_head=False needs a classifier, distance 'mse'"):
        ResidualKD(LAST, distance="attention", train_head=False)
    assert set(distil(ResidualKD(LAST, distance="attention"))(images())) >= {"residual_kd.assistant.stage3"}


# The budget


def test_widths_are_the_closed_form() -> None:
    rule = json.loads((FOLDER / "residual_kd.json").read_text())["budget_split_closed_form"]["rho->(w_S,w_A)"]
    for share, widths in rule.items():
        assert Budget(share=float(share)).widths == pytest.approx(widths, abs=1e-12)
    assert Budget(share=0.2, assistants=2).widths == pytest.approx([math.sqrt(0.8), math.sqrt(0.1), math.sqrt(0.1)])


@pytest.mark.parametrize(
    ("share", "student", "assistant", "multiply_adds"),
    [
        (0.1, (15, 30, 61), (5, 10, 20), 0.987),
        (0.2, (14, 29, 57), (7, 14, 29), 0.990),
        (0.25, (14, 28, 55), (8, 16, 32), 1.008),
        (0.5, (11, 23, 45), (11, 23, 45), 0.990),
    ],
)
def test_the_formula_alone_gives_the_designs_table_and_may_exceed_the_budget(
    share: float, student: Sequence[int], assistant: Sequence[int], multiply_adds: float
) -> None:
    given, image = cifar_resnet(56, (16, 16, 32, 64)).to("meta"), (3, 32, 32)
    parts = [narrow(given, width) for width in Budget(share=share).widths]
    for part, expected in zip(parts, (student, assistant), strict=True):
        assert tuple(part.get_submodule(f"stage{i}.0.body.0").out_channels for i in (1, 2, 3)) == expected
    found = sum(cost(part, image).multiply_adds for part in parts) / cost(given, image).multiply_adds
    assert found == pytest.approx(multiply_adds, abs=0.003)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("assistants", [1, 2])
def test_what_is_grown_never_costs_more_than_the_given_network(share: float, assistants: int) -> None:
    given, image = small_cnn(width=12, convs=2), (1, 28, 28)
    parts = split(given, Budget(share, assistants, image=image))
    budget = cost(given, image)
    assert len(parts) == 1 + assistants
    for total, most in zip(map(sum, zip(*(cost(part, image) for part in parts), strict=True)), budget, strict=True):
        assert 0.8 * most < total <= most
    pair = ResidualPair(parts[0], parts[1:])
    assert cost(pair, image).parameters <= budget.parameters  # classifiers included, and nothing besides
    assert cost(pair, image).multiply_adds <= budget.multiply_adds


def test_costs_are_counted_by_hooks_on_what_runs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Flatten())
    net.append(nn.Linear(8 * 16, 5))
    found = cost(net, (3, 8, 8))
    assert found.parameters == sum(p.numel() for p in net.parameters())
    assert found.multiply_adds == 16 * 8 * 27 + 16 * 8 * 9 + 128 * 5
    assert not net[0]._forward_hooks


def test_a_multiple_of_eight() -> None:
    parts = split(cifar_resnet(8, (32, 64, 128, 256)), Budget(multiple=8))
    for part in parts:
        assert all(layer.out_channels % 8 == 0 for layer in part.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("make", [wrn_16_2, vgg8, mobilenet_v2])
def test_the_zoo_can_be_narrowed_and_keeps_its_way_to_initialise(make: Any) -> None:
    given = make(num_classes=10)
    made = narrow(given, 0.5)
    assert made(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    pairs = zip(given.modules(), made.modules(), strict=True)
    wide = [(a, b) for a, b in pairs if isinstance(a, nn.Conv2d) and a.weight.numel() > 5000 and a.groups == 1]
    assert wide
    for a, b in wide:
        gain = (a.weight[0].numel() / b.weight[0].numel()) ** 0.5
        assert b.weight.std().item() == pytest.approx(gain * a.weight.std().item(), rel=0.1)
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(m.weight, torch.ones_like(m.weight)) for m in norms)


def test_networks_that_cannot_be_shared_out_are_refused_with_the_layer() -> None:
    with pytest.raises(UserError, match=r"leaves none of the 4 channels of the layer 'stage1.0'; change share"):
        split(small_cnn(width=4), Budget(share=0.01))
    with pytest.raises(UserError, match=r"the layer 'stage1.0.body.\d' has 3 groups, .*set multiple to 3"):
        split(shufflenet_v1(), Budget())
    with pytest.raises(UserError, match=r"the layer '2', a LayerNorm cannot be narrowed"):
        split(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8)), Budget())
    with pytest.raises(UserError, match="Sequential has no linear classifier to share out"):
        split(nn.Sequential(nn.Conv2d(1, 4, 3)), Budget())
    with pytest.raises(UserError, match=r"takes 30 features, no multiple of the 4 channels"):
        narrow(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(30, 2)), 0.5)
    with pytest.raises(UserError, match=r"a SmallCNN fails on an image \(3, 8, 8\): .*check image"):
        split(small_cnn(), Budget(image=(3, 8, 8)))


def test_settings_that_do_not_fit_are_named() -> None:
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="share is the assistants' part of the budget, between 0 and 1, got"):
            Budget(share=share)
    for name in ("assistants", "multiple"):
        with pytest.raises(UserError, match=f"{name} is a whole number from 1 on, got 0"):
            Budget(**{name: 0})
        with pytest.raises(UserError, match=f"{name} is a whole number from 1 on, got 1.5"):
            Budget(**{name: 1.5})
    for image in (32, (3, "32", 32), (32, 32)):
        with pytest.raises(UserError, match=r"image is .channels, height, width., got"):
            Budget(image=image)
    with pytest.raises(UserError, match=r"scheme.name is one of \('joint', .*, got 'progressive'"):
        Scheme("progressive")
    with pytest.raises(UserError, match=r"scheme.warmup is a share of the run"):
        Scheme(warmup=1.5)
    with pytest.raises(UserError, match=r"scheme.phases are"):
        Scheme(phases=(0.9, 0.5))
    with pytest.raises(UserError, match=r"scheme.phases are"):
        Scheme(phases=(0.2, 0.4, 0.6))
    for pairs in ({}, ["stage3"], "stage3"):
        with pytest.raises(UserError, match=r"give pairs such as"):
            ResidualKD(pairs)
    with pytest.raises(UserError, match=r"scheme is a tutelage.methods.Scheme, such as .*, got 'stagewise'"):
        ResidualKD(LAST, scheme="stagewise")
    with pytest.raises(UserError, match=r"budget is a tutelage.methods.Budget, such as .*, got \{'share': 0.2\}"):
        ResidualKD(LAST, budget={"share": 0.2})
    with pytest.raises(UserError, match=r"distance is one of \('mse', 'attention'\), got 'l1'"):
        ResidualKD(LAST, distance="l1")
    with pytest.raises(UserError, match="the assistants learn nothing"):
        ResidualKD(LAST, assistant=0.0, task_weight=0.0)
    with pytest.raises(UserError, match="'nearest'"):
        ResidualKD(LAST, resize="nearest")
    with pytest.raises(UserError, match=r"'stagewise' has the labels in its own term; set task_weight to 0, not 1.0"):
        ResidualKD(LAST, scheme=STAGEWISE)
    with pytest.raises(UserError, match="train_head=False needs"):
        ResidualKD(LAST, scheme=STAGEWISE, task_weight=0, train_head=False)
    with pytest.raises(UserError, match="distance is one of"):
        distil(ResidualKD(LAST, distance="l1"))


# Training


def test_at_the_first_step_the_assistant_adds_nothing_and_its_trunk_waits() -> None:
    distiller = distil(ResidualKD(LAST)).train()
    pair = distiller.student
    terms = distiller(images())
    assert all(not p.detach().any() for p in pair.joint().adapters[0][1].parameters())
    assert gradients(sum(terms.values()), pair.assistants[0]) == 0
    assert gradients(sum(terms.values()), pair.joint().adapters[0][1]) > 0
    assert torch.equal(terms["task"], terms["residual_kd.alone"] * 2)
    run(distiller, 1)
    assert gradients(sum(distiller(images()).values()), pair.assistants[0]) > 0


def test_the_student_gets_no_gradient_from_the_assistants_loss() -> None:
    for assistants, distance in ((1, "mse"), (2, "mse"), (1, "attention")):
        distiller = distil(ResidualKD(LAST, Budget(assistants=assistants), distance=distance), width=12)
        run(distiller, 2)
        pair, terms = distiller.student, distiller(images())
        loss = terms["residual_kd.assistant.stage3"]
        assert gradients(loss, pair.student) == gradients(loss, pair.joint().adapters[0][0]) == 0
        assert gradients(loss, pair.assistants) > 0
        assert gradients(terms["residual_kd.student.stage3"], pair.student) > 0
        assert gradients(terms["residual_kd.student.stage3"], pair.assistants) == 0
    distiller = distil(ResidualKD(LAST, scheme=Scheme("end_to_end")))
    run(distiller, 2)
    assert gradients(distiller(images())["residual_kd.combined.stage3"], distiller.student.student) > 0


def test_the_assistants_loss_waits_for_the_student() -> None:
    distiller = distil(ResidualKD(LAST))
    early, late = (distiller.eval()(images(), p)["residual_kd.assistant.stage3"] for p in (0.05, 0.1))
    assert early == 0
    assert late > 0
    distiller = distil(ResidualKD(LAST, scheme=Scheme("end_to_end")))
    assert distiller(images(), 0.0)["residual_kd.combined.stage3"] > 0


def test_an_assistant_can_correct_an_overshoot() -> None:
    """The trap: an identity adapter on a tap after ReLU is never negative, even where widths agree."""
    torch.manual_seed(0)
    given, teacher = small_cnn(width=8), Network(small_cnn(width=2))
    method = ResidualKD({"stage3": "stage3"}, Budget(share=0.2))
    distiller = Distiller(method.grow(given, teacher), teacher, method, Classification(num_classes=10))
    distiller.setup(images())
    run(distiller, 30, start=0.2)
    raw = distiller.step(images()).student.tap("assistants.0.stage3")
    fitted = distiller.student.joint().features([distiller.step(images()).student.tap("student.stage3"), raw])[1]
    assert raw.min() >= 0
    assert fitted.min() < 0 < fitted.max()


def test_without_labels_both_fit_and_the_assistant_removes_error() -> None:
    distiller = distil(ResidualKD(LAST, alone=0.0, task_weight=0.0))
    first = {k: float(v.detach()) for k, v in distiller.train()(images()).items()}
    assert list(first) == ["residual_kd.student.stage3", "residual_kd.assistant.stage3"]
    run(distiller, 60)
    last = {k: float(v.detach()) for k, v in distiller(images()).items()}
    assert all(last[name] < first[name] for name in first)
    assert last["residual_kd.assistant.stage3"] < last["residual_kd.student.stage3"]
    step = distiller.step(images())
    mine = distiller.student.joint().features(
        [step.student.tap("student.stage3"), step.student.tap("assistants.0.stage3")]
    )
    assert error_removed(mine[0], mine[1:], step.teacher.tap("stage3")) > 0


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[bool]:
    return {not torch.equal(value, before[name]) for name, value in module.state_dict().items()}


def test_stage_by_stage_every_part_is_frozen_to_the_last_statistic() -> None:
    """The trap: a frozen student in train mode, whose batch norms go on updating, or the reverse."""
    distiller = distil(ResidualKD(LAST, scheme=STAGEWISE, task_weight=0.0))
    pair = distiller.student
    head, (mine, theirs) = pair.joint(), pair.joint().adapters[0]
    watched = {
        "student": pair.student,
        "assistant": pair.assistants,
        "P_S": mine,
        "P_A": theirs,
        "head": head.classifier,
    }
    moves = {}
    for phase, (start, stop) in enumerate(((0.0, 0.3), (0.3, 0.6), (0.6, 1.0))):
        before = {name: buffers(module) for name, module in watched.items()}
        run(distiller, 4, start, stop)
        moves[phase] = {name for name, module in watched.items() if changed(module, before[name]) != {False}}
        assert [m.training for m in pair.student.modules()] == [phase == 0] * len(list(pair.student.modules()))
        assert [m.training for m in pair.assistants[0].modules()].count(True) == (
            0 if phase == 2 else len(list(pair.assistants[0].modules()))
        )
    assert moves[0] - {"assistant"} == {"student", "P_S", "head"}
    assert moves[1] == {"assistant", "P_A"}
    assert moves[2] == {"head"}
    weights = [name for name, _ in pair.assistants.named_parameters()]
    assert weights  # in the first phase the assistant runs, and its statistics move, but none of its weights do


def test_stage_by_stage_the_assistants_weights_wait() -> None:
    distiller = distil(ResidualKD(LAST, scheme=STAGEWISE, task_weight=0.0))
    before = {name: p.detach().clone() for name, p in distiller.student.assistants.named_parameters()}
    run(distiller, 3, 0.0, 0.3)
    assert all(torch.equal(p, before[name]) for name, p in distiller.student.assistants.named_parameters())


def test_stage_by_stage_has_one_term_that_always_reaches_the_student() -> None:
    distiller = distil(ResidualKD(LAST, scheme=STAGEWISE, task_weight=0.0))
    for progress in (0.0, 0.3, 0.6, 1.0):
        terms = distiller.train()(images(), progress)
        assert list(terms) == ["residual_kd"]
        assert gradients(terms["residual_kd"], distiller.student) > 0


def test_the_hook_before_a_step_reaches_every_member_of_together() -> None:
    method = Together([ResidualKD(LAST, scheme=STAGEWISE, task_weight=0.0)])
    teacher = Network(small_cnn(width=12))
    distiller = Distiller(method.grow(small_cnn(width=8), teacher), teacher, method, Classification(num_classes=10))
    distiller.setup(images())
    distiller.train()(images(), 0.4)
    assert not distiller.student.student.training
    assert distiller.student.assistants.training


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    """The two as an ensemble that is trained by labels alone is a control worth running."""
    distiller = distil(ResidualKD(LAST, student=0.0, assistant=0.0, alone=0.0))
    assert set(distiller(images())) == {"task"}
    run(distiller, 2)
    assert gradients(distiller(images())["task"], distiller.student.assistants) > 0


def test_several_taps_have_adapters_of_their_own_which_are_not_shipped() -> None:
    distiller = distil(ResidualKD({"stage2": "stage2", "stage3": "stage3"}))
    terms = distiller(images())
    assert {"residual_kd.student.stage2", "residual_kd.assistant.stage3"} < set(terms)
    for name, term in terms.items():
        assert gradients(term, distiller.student) > 0, name
    assert set(distiller.ship().state_dict()) == set(distil(ResidualKD(LAST)).ship().state_dict())


def test_the_head_starts_from_the_teachers_classifier_which_may_stay() -> None:
    for train_head in (True, False):
        distiller = distil(ResidualKD(LAST, train_head=train_head))
        mine, theirs = distiller.student.joint().classifier, distiller.teacher.module("classifier")
        assert torch.equal(mine.weight, theirs.weight)
        assert mine is not theirs
        assert mine.weight.requires_grad is train_head
        assert not theirs.weight.requires_grad
    fresh = distil(ResidualKD(LAST, classifier=None)).student.joint().classifier
    assert not torch.equal(fresh.weight, theirs.weight)
    assert fresh.weight.shape == theirs.weight.shape


def test_a_head_that_does_not_see_the_tap_is_refused_with_both_widths() -> None:
    with pytest.raises(UserError, match=r"the classifier of the student takes 28 features, but the tap gives 14"):
        distil(ResidualKD({"stage2": "stage3"}))
    with pytest.raises(UserError, match=r"the classifier of the teacher takes 48 features, but the tap gives 24"):
        distil(ResidualKD({"stage3": "stage2"}, resize="bilinear"))
    assert "task" in distil(ResidualKD({"stage3": "stage2"}, classifier=None, resize="bilinear"))(images())
    with pytest.raises(UserError, match="the classifier of the student does not see the tap's mean over positions"):
        distil(ResidualKD({"stage3.0": "stage3"}))
    with pytest.raises(UserError, match="the classifier of the teacher does not see the tap's mean over positions"):
        distil(ResidualKD({"stage3": "stage3.0"}))
    with pytest.raises(UserError, match="the classifier of the teacher is a SmallCNN, but must be a linear layer"):
        distil(ResidualKD(LAST, classifier=""))


def test_other_sizes_need_a_word() -> None:
    with pytest.raises(
        UserError, match=r"give \(12, 24, 7, 7\), \(12, 24, 7, 7\), the teacher \(12, 24, 14, 14\); pair"
    ):
        distil(ResidualKD({"stage3": "stage2"}, classifier=None))
    distiller = distil(ResidualKD({"stage3": "stage2"}, classifier=None, resize="bilinear"))
    step = distiller.step(images())
    mine = distiller.student.joint().features([step.student.tap(name) for name in distiller.method.student_taps])
    told = F.interpolate(step.teacher.tap("stage2"), (7, 7), mode="bilinear")
    expected = feature_distance(mine[0], told)
    assert torch.isclose(distiller.method(step)["residual_kd.student.stage3"], expected)
    with pytest.raises(UserError, match="is always 0; give maps"):
        distil(ResidualKD(LAST, distance="attention"), size=4)
    with pytest.raises(UserError, match="features of one shape"):
        residual_kd_loss(torch.zeros(2, 3), [torch.zeros(2, 3)], torch.zeros(2, 4))


def test_pooled_vectors_are_the_case_of_one_position() -> None:
    distiller = distil(ResidualKD({"flatten": "flatten"}))
    assert distiller(images())["residual_kd.student.flatten"] > 0


def test_a_tap_that_is_nan_is_refused_and_a_method_that_did_not_grow_says_so() -> None:
    teacher = small_cnn(width=12)
    nn.init.constant_(teacher.stage3[0].weight, float("nan"))
    method = ResidualKD(LAST)
    grown = method.grow(small_cnn(width=8), Network(teacher))
    distiller = Distiller(grown, Network(teacher), method, Classification(num_classes=10))
    with pytest.raises(UserError, match=r"the teacher's .* holds NaN"):
        distiller.setup(images())
    example = Step(Output(None), Output(None), None, lambda out: out)
    with pytest.raises(UserError, match=r"no assistant yet; give the Distiller method.grow\(student, teacher\)"):
        ResidualKD(LAST)(example)
    with pytest.raises(UserError, match="the adapters are not built yet"):
        distiller.method(example)
    with pytest.raises(UserError, match=r"no module 'student.stage3' .*was the student grown"):
        Distiller(small_cnn(), distiller.teacher, ResidualKD(LAST), Classification(num_classes=10))
    method, teacher = ResidualKD(LAST), Network(small_cnn(width=12, num_classes=20))
    student = method.grow(small_cnn(), teacher)
    with pytest.raises(UserError, match="the teacher has 20 classes, the student 10; set classifier to None"):
        Distiller(student, teacher, method, Classification(num_classes=10)).setup(images())


@pytest.mark.parametrize(
    "settings",
    [
        {"student": 0.0},
        {"assistant": 0.0},
        {"student": 0.0, "assistant": 0.0},
        {"alone": 0.0, "task_weight": 0.0},
        {"scheme": Scheme("end_to_end"), "student": 0.0},
    ],
)
def test_whatever_is_trained_gets_a_gradient(settings: dict[str, Any]) -> None:
    """DDP waits for every parameter that has none."""
    distiller = distil(ResidualKD({"stage2": "stage2", **LAST}, **settings))
    sum(distiller.train()(images()).values()).backward()
    assert [name for name, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_student_in_double_precision_trains() -> None:
    method, teacher = ResidualKD(LAST, classifier=None), Network(small_cnn(width=12).double())
    distiller = Distiller(method.grow(small_cnn().double(), teacher), teacher, method, Classification(num_classes=10))
    x, y = images()
    distiller.setup((x.double(), y))
    assert distiller((x.double(), y))["residual_kd.student.stage3"].dtype == torch.float64


def test_every_phase_is_tried_before_training() -> None:
    method = ResidualKD(LAST, distance="attention", scheme=STAGEWISE, task_weight=0.0)
    with pytest.raises(UserError, match=r"the attention distance of features .* is always 0"):
        distil(method, size=4)  # maps of one position


# What is shipped


@torch.no_grad()
def ship_and_compare(distiller: Distiller) -> None:
    x = images()[0]
    before, alone = distiller.eval().student(x), distiller.student.student_only().eval()
    z, joint = [member((x - 0.3) / 0.2) for member in distiller.student.members], distiller.student.joint()
    joined = [F.linear(v, a.weight, a.bias) for v, a in zip(z, joint.adapters[-1], strict=True)]
    assert torch.allclose(before, joint.classifier(sum(joined)), atol=1e-4)
    shipped = distiller.ship()
    assert torch.equal(shipped(x), before)
    assert not any("adapter" in name or "head" in name for name in shipped.state_dict())
    assert torch.equal(distiller.ship()(x), before)
    assert type(alone).__name__ == "SmallCNN"
    assert torch.equal(alone(x), joint.logits(0, z[0]))
    assert torch.equal(shipped.student_only()(x), alone(x))
    assert not torch.allclose(alone(x), before, atol=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")  # deprecated, but still in use
def test_what_is_shipped_can_be_traced() -> None:
    x, shipped = images()[0], distil(ResidualKD(LAST)).ship().eval()
    assert torch.equal(torch.jit.trace(shipped, x)(x), shipped(x))


def test_the_student_out_of_a_pair_in_training_is_a_network_of_its_own() -> None:
    distiller = distil(ResidualKD(LAST))
    distiller.student(images()[0])  # leaves a graph behind in the taps
    alone = distiller.student.student_only()
    alone(images()[0])
    assert not any(module._forward_hooks for module in alone.modules())
    copy.deepcopy(alone)
    distiller(images())


def test_a_grown_network_lies_where_the_given_one_lies() -> None:
    student = normalize_inputs(small_cnn(), [0.3], [0.2])
    with torch.device("meta"):
        grown = ResidualKD(LAST).grow(student, Absent())
    assert {value.device.type for value in (*grown.parameters(), *grown.buffers())} == {"cpu"}


def test_shipped_logits_are_those_of_training_to_the_last_bit() -> None:
    """The trap: adapters look like training aids, and without them the shipped network is wrong."""
    for settings in ({}, {"budget": Budget(assistants=2)}, {"scheme": Scheme("end_to_end"), "classifier": None}):
        distiller = distil(ResidualKD(LAST, **settings), width=12)
        run(distiller, 5)
        ship_and_compare(distiller)


@torch.no_grad()
def test_normalisation_is_stated_once_and_applied_once() -> None:
    distiller = distil(ResidualKD(LAST)).eval()
    pair, x = distiller.student, images()[0]
    assert normalization(pair) == ([0.3], [0.2])
    tapped = distiller.step(images()).student.tap("student.stage3")
    bare = pair.student.stage3(pair.student.stage2(pair.student.stage1((x - 0.3) / 0.2)))
    assert torch.allclose(tapped, bare, atol=1e-6)
    assert normalization(pair.student_only()) == ([0.3], [0.2])


def test_what_ships_is_rebuilt_without_teacher_data_or_adapters() -> None:
    distiller = distil(ResidualKD(LAST))
    run(distiller, 2)
    shipped = distiller.ship().eval()
    method = ResidualKD(LAST)
    again = method.ship(method.grow(small_cnn(width=8), Absent()))
    assert set(again.state_dict()) == set(shipped.state_dict())
    again.load_state_dict(shipped.state_dict())
    normalize_inputs(again, [0.3], [0.2])
    assert torch.equal(again.eval()(images()[0]), shipped(images()[0]))


CLEAN = """
import sys, torch
from safetensors.torch import load_file, save_file
from tutelage import Absent, ResidualKD
from tutelage.core.normalization import normalize_inputs
from tutelage.engine.weights import load_weights
from tutelage.models import small_cnn
torch.set_num_threads(1)
method = ResidualKD({"stage3": "stage3"})
network = method.ship(method.grow(small_cnn(width=6), Absent()))
load_weights(network, sys.argv[1])
normalize_inputs(network, [float(sys.argv[2])], [float(sys.argv[3])]).eval()
save_file({"logits": network(load_file(sys.argv[4])["images"])}, sys.argv[5])
"""


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tutelage import Alone

    out = tmp_path_factory.mktemp("small-teacher") / "run"
    recipe = make_recipe(Alone(), None, epochs=3)
    recipe.student, recipe.labels = Student(small_cnn(width=12)), None
    assert fit(recipe, out)["test"]["top1"] > 0.8
    return out


@pytest.mark.parametrize("settings", [{}, {"ema": 0.8, "keep": "last"}])
def test_a_run_ships_one_network_that_loads_in_a_clean_process(
    small_teacher: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe = make_recipe(ResidualKD(LAST), None, **settings)
    recipe.student = Student(small_cnn(width=6))
    recipe.teacher = TeacherNetwork(small_cnn(width=12), weights=str(small_teacher))
    metrics = fit(recipe, tmp_path / "run")
    assert metrics["parameters"]["student"] <= sum(p.numel() for p in small_cnn(width=6).parameters())
    assert metrics["parameters"]["method"] == 0
    terms = RunFolder(tmp_path / "run").records()[-1]["terms"]
    assert set(terms) == {"task", "residual_kd.student.stage3", "residual_kd.assistant.stage3", "residual_kd.alone"}
    stated = json.loads((tmp_path / "run/student.json").read_text())
    assert stated["network"] == "ResidualPair"
    test = recipe.data.splits(200, 0).test
    pixels = torch.stack([test[i][0] for i in range(len(test))])
    labels = torch.tensor([int(test[i][1]) for i in range(len(test))])
    save_file({"images": pixels}, tmp_path / "images.safetensors")
    command = [sys.executable, "-c", CLEAN, str(tmp_path / "run"), str(stated["mean"][0]), str(stated["std"][0])]
    subprocess.run([*command, str(tmp_path / "images.safetensors"), str(tmp_path / "logits.safetensors")], check=True)
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    assert F.cross_entropy(logits, labels).item() == pytest.approx(metrics["test"]["nll"], abs=1e-5)
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(metrics["test"]["top1"], abs=1e-6)
    with pytest.raises(UserError, match="does not fit SmallCNN"):
        load_weights(small_cnn(width=6), tmp_path / "run")


def test_stage_by_stage_runs_in_the_engine_and_resumes_bit_for_bit(small_teacher: Path, tmp_path: Path) -> None:
    def recipe() -> Any:
        made = make_recipe(ResidualKD(LAST, scheme=Scheme("stagewise"), task_weight=0.0), None, epochs=4)
        made.student = Student(small_cnn(width=6))
        made.teacher = TeacherNetwork(small_cnn(width=12), weights=str(small_teacher))
        return made

    whole = fit(recipe(), tmp_path / "whole")
    assert whole["test"]["nll"] < 3.0

    class Stop(Exception):
        pass

    folder, log = tmp_path / "parts", RunFolder.log
    with pytest.MonkeyPatch.context() as patch:

        def stop(self: RunFolder, record: dict[str, Any], *rest: Any) -> None:
            log(self, record, *rest)
            if record["epoch"] == 4:
                raise Stop

        patch.setattr(RunFolder, "log", stop)
        with pytest.raises(Stop):
            fit(recipe(), folder)
    fit(recipe(), folder, resume=True)
    first, second = (load_file(path / "student.safetensors") for path in (tmp_path / "whole", folder))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_command_line_evaluates_it_as_the_run_did(
    small_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tutelage.cli import main

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
data: {{class_path: tutelage.data.Digits}}
labels: 200
task: {{class_path: tutelage.tasks.Classification, init_args: {{num_classes: 10}}}}
teacher: {{network: {{class_path: tutelage.models.small_cnn, init_args: {{width: 12}}}}, weights: {small_teacher}}}
student: {{network: {{class_path: tutelage.models.small_cnn, init_args: {{width: 6}}}}}}
method:
  class_path: tutelage.methods.ResidualKD
  init_args: {{pairs: {{stage3: stage3}}, budget: {{share: 0.3, image: [1, 8, 8]}}}}
train: {{epochs: 2, batch_size: 50, threads: 1}}
"""
    )
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert figures == pytest.approx(metrics["test"], abs=1e-6)
    assert main(["plan", str(recipe)]) == 0
    assert "residual_kd.assistant.stage3" in capsys.readouterr().out
