"""OFA-KD against the numbers of the official code, on networks that are really unlike, and where that code must not be
followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import timm.models
import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors import FOLDER, tensor
from tutelage import OFA, Classification, Distiller, Network, Output, Step, UserError
from tutelage.core.normalization import normalize_inputs
from tutelage.methods import ofa_loss
from tutelage.methods.exit_branch import exit_branch
from tutelage.methods.kd import kd_loss
from tutelage.methods.readings import Reading, read
from tutelage.methods.token_branch import Merge, TokenBranch
from tutelage.models import small_cnn


def listed(name: str, kind: str = "") -> list[dict[str, Any]]:
    return [c for c in json.loads((FOLDER / f"{name}.json").read_text())["cases"] if kind in c.get("kind", "")]


def given(case: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    key = f"case{case['case']}_"
    student, teacher = (tensor("ofa", f"{key}{whose}_logits", dtype) for whose in ("student", "teacher"))
    return student.requires_grad_(), teacher, tensor("ofa", f"{key}targets", torch.int64)


def step(student: Tensor, teacher: Tensor, labels: Tensor, taps: Mapping[str, Tensor] | None = None) -> Step:
    return Step(Output(student, taps or {}), Output(teacher), (None, labels), lambda out: out)


def official(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """The official form, from the specification's description of it."""
    mask = F.one_hot(labels, student.shape[1])
    return -(((teacher.softmax(1) + mask) ** gamma - mask) * student.softmax(1).log()).sum(1).mean()


LOSSES = listed("ofa", "ofa_loss")


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: str(case["case"]))
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-7)])
def test_value_and_gradient_are_the_official_ones(
    case: dict[str, Any], dtype: torch.dtype, rtol: float, atol: float
) -> None:
    student, teacher, labels = given(case, dtype)
    loss = ofa_loss(student, teacher, labels, case["eps"], case["temperature"])
    loss.backward()
    assert loss.dtype == dtype
    key = f"case{case['case']}_"
    torch.testing.assert_close(loss.detach(), tensor("ofa", f"{key}loss", dtype), rtol=rtol, atol=atol)
    torch.testing.assert_close(student.grad, tensor("ofa", f"{key}grad_student", dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", listed("ofa", "composite"), ids=lambda case: str(case["case"]))
def test_the_whole_loss_is_the_official_one(case: dict[str, Any]) -> None:
    key = f"case{case['case']}_"
    student, teacher, labels = given(case)
    numbers = case["stages"]
    taps = {f"s{k}": tensor("ofa", f"{key}branch{k}_logits").requires_grad_() for k in numbers}
    gamma = case["eps_expanded"] if len(set(case["eps_expanded"])) > 1 else case["eps_expanded"][0]
    method = OFA({f"s{k}": k for k in numbers}, gamma=gamma, temperature=case["temperature"],
                 weight=case["kd_loss_weight"], branch_weight=case["ofa_loss_weight"])  # fmt: skip
    method.branches = nn.ModuleList(nn.Identity() for _ in numbers)
    terms = method(step(student, teacher, labels, taps))
    smoothing = 0.1 if "Smoothing" in case["criterion"] else 0.0
    supervised = method.task_weight * F.cross_entropy(student, labels, label_smoothing=smoothing)
    total = supervised + sum(terms.values())
    total.backward()
    branches = sum(terms[f"ofa.s{k}"] for k in numbers)
    for name, value in {"loss_gt": supervised, "loss_kd": terms["ofa"], "loss_ofa": branches, "loss": total}.items():
        torch.testing.assert_close(value.detach(), tensor("ofa", key + name), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, tensor("ofa", f"{key}grad_student"), rtol=0, atol=1e-12)
    for k in numbers:
        torch.testing.assert_close(taps[f"s{k}"].grad, tensor("ofa", f"{key}grad_branch{k}"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", listed("ofa", "non-finite"), ids=lambda case: str(case["case"]))
def test_it_is_right_where_the_official_code_is_not_finite(case: dict[str, Any]) -> None:
    key = f"case{case['case']}_"
    student, teacher, labels = given(case, torch.float32)
    loss = ofa_loss(student, teacher, labels, case["eps"], case["temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(tensor("ofa", f"{key}loss").item(), rel=1e-5)
    torch.testing.assert_close(student.grad, tensor("ofa", f"{key}grad_student", torch.float32), rtol=1e-5, atol=1e-7)
    assert not tensor("ofa", f"{key}official_loss_f32").isfinite()
    assert not official(student, teacher, labels, case["eps"]).isfinite()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_gaps_of_a_thousand_are_safe(dtype: torch.dtype, gamma: float) -> None:
    student = torch.tensor([[0.0, 1000.0, -1000.0], [500.0, -500.0, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[1000.0, 0.0, -1000.0], [-500.0, 500.0, 0.0]], dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ofa_loss(student, teacher, torch.tensor([0, 2]), gamma)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.item() == pytest.approx((1000 * (2**gamma - 1) + 1000) / 2, rel=1e-3)
    assert student.grad.isfinite().all()


def test_gamma_1_has_the_gradient_of_plain_distillation() -> None:
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64).unbind()
    first, second = student.clone().requires_grad_(), student.clone().requires_grad_()
    ofa_loss(first, teacher, torch.arange(8) % 5, gamma=1.0).backward()
    kd_loss(second, teacher, temperature=1.0).backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=0, atol=1e-14)


def test_there_is_no_factor_of_the_squared_temperature() -> None:
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    cool = ofa_loss(student / 4, teacher / 4, labels, gamma=1.3)
    assert torch.allclose(ofa_loss(student, teacher, labels, gamma=1.3, temperature=4.0), cool)


def test_the_excess_is_zero_at_best_and_has_the_same_gradient() -> None:
    teacher, labels = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    mask = F.one_hot(labels, 5)
    best = ((teacher.softmax(1) + mask) ** 1.4 - mask).log()
    assert ofa_loss(best, teacher, labels, 1.4, excess=True).item() == pytest.approx(0.0, abs=1e-14)
    assert ofa_loss(best, teacher, labels, 1.4).item() > 0.1
    raw, net = (torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    ofa_loss(raw.requires_grad_(), teacher, labels, 1.4).backward()
    loss = ofa_loss(net.requires_grad_(), teacher, labels, 1.4, excess=True)
    loss.backward()
    assert loss.item() > 0
    assert torch.equal(raw.grad, net.grad)


def test_soft_labels_count_by_their_first_maximum() -> None:
    student, teacher = torch.randn(2, 3, 4)
    soft = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.4, 0.1, 0.4, 0.1], [0.0, 0.0, 0.0, 1.0]])
    assert torch.equal(ofa_loss(student, teacher, soft, 1.5), ofa_loss(student, teacher, torch.tensor([1, 0, 3]), 1.5))


def test_items_without_a_label_are_left_out() -> None:
    student, teacher = torch.randn(2, 4, 5)
    student.requires_grad_()
    some = ofa_loss(student, teacher, torch.tensor([1, -100, 2, -100]), 1.5)
    assert torch.allclose(some, ofa_loss(student[::2], teacher[::2], torch.tensor([1, 2]), 1.5))
    none = ofa_loss(student, teacher, torch.full((4,), -100), 1.5)
    none.backward()
    assert none.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on the meta device has no values: whatever would have to wait for them raises."""
    monkeypatch.setattr("tutelage.methods.ofa.full_precision", lambda device: nullcontext())  # meta has no autocast
    student, teacher = torch.empty(2, 4, 5, device="meta")
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    taps = {"a": torch.empty(4, 6, 9, 9, device="meta")}
    with torch.device("meta"):
        method = OFA({"a": 3})
        method.branches = nn.ModuleList([exit_branch(read(taps["a"], "a"), 3, 6, 5)])
        terms = method(step(student, teacher, labels, taps))
    assert {name: tuple(value.shape) for name, value in terms.items()} == {"ofa": (), "ofa.a": ()}


@pytest.mark.parametrize("case", listed("ofa_branches"), ids=lambda case: str(case["case"]))
def test_a_branch_is_the_official_one(case: dict[str, Any]) -> None:
    key, stage = f"case{case['case']}_", case["stage"]
    feature = tensor("ofa_branches", f"{key}feature").requires_grad_()
    reading = read(feature, "stage", prefix=case["prefix_tokens"])
    width = case["student_dim"] if reading.grid else max(case["student_dim"], case["teacher_dim"])
    branch = exit_branch(reading, stage, width, case["num_classes"]).double()
    with np.load(FOLDER / "ofa_branches.npz") as arrays:
        names = [name for name in arrays.files if name.startswith(f"{key}param/")]
    own = branch.state_dict()
    assert len(own) == len(names)
    state = {mine: tensor("ofa_branches", name, own[mine].dtype) for mine, name in zip(own, names, strict=True)}
    branch.load_state_dict(state)
    assert sum(p.numel() for p in branch.parameters()) == case["param_count"]
    torch.testing.assert_close(
        branch.eval()(feature).detach(), tensor("ofa_branches", f"{key}logits_eval"), rtol=0, atol=1e-12
    )
    logits = branch.train()(feature)
    logits.square().sum().backward()
    torch.testing.assert_close(logits.detach(), tensor("ofa_branches", f"{key}logits_train"), rtol=0, atol=1e-12)
    gradient = tensor("ofa_branches", f"{key}grad_feature_of_sum_sq_train")
    torch.testing.assert_close(feature.grad, gradient, rtol=0, atol=1e-12)


RESNET18 = [Reading(c) for c in (64, 128, 256, 512)]
MOBILENET = [Reading(c) for c in (24, 32, 96, 1280)]
RESNET50 = [Reading(c) for c in (256, 512, 1024, 2048)]
DEIT = [Reading(192, (14, 14), 1)] * 4
RESMLP = [Reading(384, (14, 14))] * 4
SWIN_N = [Reading(64 * 2**k, (56 // 2**k,) * 2) for k in range(4)]
SWIN_P = [Reading(48 * 2**k, (56 // 2**k,) * 2) for k in range(4)]


@pytest.mark.parametrize(
    ("readings", "width", "millions"),
    [
        (RESNET18, 512, (3.04, 1.19)),
        (RESNET18, 768, (4.39, 1.63)),
        (MOBILENET, 1280, (7.14, 2.53)),
        (RESNET50, 2048, (23.70, 16.33)),
        (DEIT, 192, (4.48, 3.78)),
        (SWIN_N, 512, (28.19, 26.34)),
        (SWIN_P, 384, (16.25, 14.86)),
        (RESMLP, 384, (16.32, 14.94)),
    ],
)
def test_branches_have_the_published_size(readings: list[Reading], width: int, millions: tuple[float, float]) -> None:
    for classes, expected in zip((1000, 100), millions, strict=True):
        with torch.device("meta"):
            branches = [exit_branch(reading, stage, width, classes) for stage, reading in enumerate(readings, 1)]
        count = sum(p.numel() for branch in branches for p in branch.parameters())
        assert round(count / 1e6, 2) == expected


def resnet(channels: int = 3) -> nn.Module:
    return timm.models.ResNet(BasicBlock, (1, 1, 1, 1), 7, channels, channels=(10, 12, 16, 24), stem_width=8)


def vit(size: int | tuple[int, int] = 32, **settings: Any) -> nn.Module:
    return timm.models.VisionTransformer(size, 8, 3, 7, embed_dim=12, depth=4, num_heads=2, **settings)


def mixer() -> nn.Module:
    return timm.models.MlpMixer(7, 32, patch_size=8, num_blocks=4, embed_dim=12)


def swin() -> nn.Module:
    return timm.models.SwinTransformer(32, 2, 3, 7, embed_dim=8, depths=(1,) * 4, num_heads=(1, 1, 2, 2), window_size=4)


BLOCKS = {f"blocks.{k}": k + 1 for k in range(4)}
LAYERS = {f"layers.{k}": k + 1 for k in range(4)}
STUDENTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "cnn": (resnet, {"stages": {f"layer{k}": k for k in range(1, 5)}, "width": 32}),
    "vit": (vit, {"stages": BLOCKS, "prefix_tokens": 1}),
    "vit with registers": (lambda: vit(reg_tokens=3), {"stages": BLOCKS, "prefix_tokens": 4}),
    "wide vit": (lambda: vit((32, 56), class_token=False, global_pool="avg"), {"stages": BLOCKS, "grid": (4, 7)}),
    "mixer": (mixer, {"stages": BLOCKS}),
    "swin": (swin, {"stages": LAYERS, "layout": "NHWC"}),
}  # fmt: skip
TEACHERS: dict[str, Callable[[], nn.Module]] = {"cnn": resnet, "vit": vit, "mixer": mixer, "swin": swin}
PAIRS = [(s, t) for s in STUDENTS for t in TEACHERS if t not in s and "wide" not in s] + [("wide vit", "cnn")]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_unlike_networks_learn_from_each_other(student: str, teacher: str) -> None:
    make, settings = STUDENTS[student]
    pupil, master = make(), TEACHERS[teacher]()
    before = set(pupil.state_dict())
    method, task = OFA(gamma=[1.1, 1.2, 1.3, 1.4, 1.5], **settings), Classification(num_classes=7)
    distiller = Distiller(pupil, Network(master), method, task)
    colours = torch.linspace(0, 1, 6).view(6, 1, 1, 1) + torch.randn(6, 3, 1, 1)
    images = colours + 0.1 * torch.rand(6, 3, 32, 56 if "wide" in student else 32)
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
    assert list(values[0]) == ["task", "ofa", *(f"ofa.{name}" for name in settings["stages"])]
    first, last = (
        values[0],
        values[-1],
    )  # an untrained teacher may pull the student's own logits off the labels: no "ofa"
    assert not {name: (first[name], last[name]) for name in first if name != "ofa" and last[name] >= first[name]}
    unused = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not unused
    assert all(p.grad is None for p in master.parameters())
    shipped = distiller.ship()
    assert shipped is pupil
    assert set(shipped.state_dict()) == before
    assert any(key.startswith("method.branches") for key in distiller.state_dict())


def test_each_network_keeps_its_own_normalisation() -> None:
    pupil = normalize_inputs(vit(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    master = normalize_inputs(resnet(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    distiller = Distiller(pupil, Network(master), OFA(BLOCKS, prefix_tokens=1), Classification(num_classes=7))
    batch = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    seen: list[Tensor] = []
    handle = master.conv1.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    distiller.setup(batch)
    handle.remove()
    assert torch.allclose(seen[0], (batch[0] - 0.5) / 0.5)


def test_without_stages_only_the_students_own_logits_are_taught() -> None:
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    method = OFA(gamma=1.2, weight=0.5)
    method.setup(step(student, teacher, labels), None)
    terms = method(step(student, teacher, labels))
    assert list(terms) == ["ofa"]
    assert torch.equal(terms["ofa"], 0.5 * ofa_loss(student, teacher, labels, 1.2))
    assert not list(method.parameters())


@pytest.mark.parametrize(("grid", "merged"), [((15, 15), 1), ((15, 29), 1), ((32, 32), 2), ((5, 3), 0)])
def test_grids_need_not_be_even_or_square(grid: tuple[int, int], merged: int) -> None:
    branch = TokenBranch(grid, 0, 6, 10, 5, stage=4)
    assert branch(torch.randn(2, grid[0] * grid[1], 6)).shape == (2, 5)
    assert len(branch.merges) == merged


def test_an_odd_grid_is_padded_at_the_bottom_and_right() -> None:
    merge, x = Merge(6, 10, active=True), torch.randn(2, 15 * 29, 6)
    tokens, grid = merge(x, (15, 29))
    assert grid == (8, 15)
    corner = torch.cat((x[:, -1], torch.zeros(2, 18)), 1)
    assert torch.allclose(tokens[:, -1], merge.activation(merge.reduction(merge.norm(corner))), atol=1e-6)
    first = torch.cat((x[:, 0], x[:, 29], x[:, 1], x[:, 30]), 1)  # down before right
    assert torch.allclose(tokens[:, 0], merge.activation(merge.reduction(merge.norm(first))), atol=1e-6)


@pytest.mark.parametrize(("width", "heads"), [(12, 4), (9, 3), (10, 2), (7, 1)])
def test_as_many_heads_as_divide_the_width(width: int, heads: int) -> None:
    branch = TokenBranch((4, 4), 1, 5, width, 3, stage=1)
    assert branch.blocks[0].heads == heads
    assert branch(torch.randn(2, 17, 5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((2, 197, 8), {}, r"197 tokens, which are not 0 prefix tokens and a square grid; set prefix_tokens \(with 1 a"),
        ((2, 196, 8), {"prefix": 1}, "196 tokens, which are not 1 prefix tokens and a square grid"),
        ((2, 25, 8), {"prefix": 1, "grid": (4, 7)}, "25 tokens, which are not 1 prefix tokens and a grid of 4 × 7"),
        ((2, 7, 7, 8), {}, "does not tell where the channels are; layout is 'NCHW' or 'NHWC', got None"),
        ((2, 7, 7, 7), {}, "does not tell where the channels are"),
        ((2, 8, 14, 7), {}, "does not tell where the channels are"),
        ((2, 8, 7, 7), {"layout": "HWC"}, "got 'HWC'"),
        ((2, 8), {}, "needs a map of four dimensions, or tokens"),
    ],
)
def test_a_shape_is_never_guessed(shape: tuple[int, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"the stage 'x' gives .*{message}"):
        read(torch.zeros(shape), "x", **settings)


def test_other_tokens_than_at_the_beginning_are_named() -> None:
    branch = exit_branch(Reading(6, (4, 4), 1), 2, 6, 3)
    with pytest.raises(UserError, match="got 26 tokens, but was built for 1 prefix tokens and a grid of 4 × 4"):
        branch(torch.zeros(2, 26, 6))


def test_one_value_a_channel_is_refused_in_training() -> None:
    branch = exit_branch(Reading(6), 3, 6, 3)
    with pytest.raises(
        UserError, match="cannot train on a batch of 1 whose map of 2 × 2 shrinks to one value a channel"
    ):
        branch(torch.zeros(1, 6, 2, 2))
    assert branch.eval()(torch.zeros(1, 6, 2, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 3), torch.zeros(4, 5), torch.zeros(4).long()), r"got \(4, 3\) torch.float32 from the student"),
        ((torch.zeros(4, 3, 2), torch.zeros(4, 3, 2), torch.zeros(4).long()), r"needs logits \(N, C\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 2)), r"needs labels .* got \(4, 2\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])), "the label 3 is none of the 3 classes"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), torch.tensor([0, 1, 2, -1])), "the label -1 is none of the 3 classes"),
        (
            (torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4).long(), 0.0),
            "the gamma of OFA must be positive, got 0.0",
        ),
        (
            (torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4).long(), 1.0, -1.0),
            "the temperature of OFA must be positive, got -1.0",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ofa_loss(*arguments)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="takes one gamma, or 3: one a stage and one for the logits; got 2"):
        OFA({"a": 1, "b": 2}, gamma=[1.0, 1.1])
    with pytest.raises(UserError, match=r"from 1 to 4, its last, by tap; got \{'a': 5\}"):
        OFA({"a": 5})
    assert OFA({"a": 1, "b": 2}, gamma=[1.5])._gammas() == [1.5] * 3
    with pytest.raises(UserError, match="must be positive"):
        OFA(gamma=[0.0])
    for stages in (["layer1", "layer2"], "layer1", {"layer1": 1.0}):
        with pytest.raises(UserError, match="by tap; got"):
            OFA(stages)
    for settings, message in (
        ({"width": -3}, "a number of channels, or None; got -3"),
        ({"width": 3.5}, "a number of channels, or None; got 3.5"),
        ({"layout": "banana"}, "got 'banana'"),
        ({"prefix_tokens": -1}, "counts tokens before the grid's; got -1"),
    ):
        with pytest.raises(UserError, match=message):
            OFA({"a": 4}, **settings)
    student = small_cnn(width=8)
    with pytest.raises(UserError, match=r"no module 'stage4' in SmallCNN; did you mean \['stage3'"):
        Distiller(student, Network(small_cnn()), OFA({"stage4": 4}), Classification(num_classes=10))
    batch = torch.rand(4, 1, 28, 28), torch.arange(4)
    maps = OFA({"stage3": 4}, prefix_tokens=1)
    with pytest.raises(UserError, match=r"describe tokens \(N, L, D\), but the stages give .*'stage3'"):
        Distiller(student, Network(small_cnn()), maps, Classification(num_classes=10)).setup(batch)
    with pytest.raises(UserError, match="the exit branches are not built yet"):
        Distiller(student, Network(small_cnn()), OFA({"stage3": 4}), Classification(num_classes=10))(batch)
    example = step(torch.zeros(2, 3), torch.full((2, 3), torch.nan), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="the teacher's output holds NaN"):
        OFA().setup(example, None)
