"""AFD against the numbers of the official code, and where that code must not be followed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors import FOLDER, cases, tensor
from tutelage import AFD, KD, Classification, Distiller, Network, Output, Step, Taps, Together, UserError
from tutelage.methods import afd_loss
from tutelage.methods.afd import Attention
from tutelage.methods.attention import attention_use
from tutelage.methods.energies import energies, values
from tutelage.models import small_cnn, wrn_16_2

CASES = cases("afd")
RECIPES = Path(__file__).parents[2] / "recipes/classification"
OURS = (
    ("attention__linear_trans_s__key_layer__", "keys."),
    ("attention__linear_trans_t__query_layer__", "queries."),
    ("attention__linear_trans_s__bilinear__", "bilinear."),
    ("attention__", ""),
    ("linear__", "0."),
    ("bn__", "1."),
    ("__", "."),
)


def maps(name: str, side: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return a case's feature maps; the student's are leaves."""
    count = len(CASES[name]["student_shapes" if side == "s" else "teacher_shapes"])
    found = [tensor("afd", f"{name}_{side}{i}", dtype) for i in range(count)]
    return [x.requires_grad_() for x in found] if side == "s" else found


def official(name: str) -> Attention:
    """Return our attention with a case's official weights."""
    shapes = [[s[1] for s in CASES[name][f"{side}_shapes"]] for side in ("student", "teacher")]
    attention = Attention(shapes[0], shapes[1], CASES[name]["qk_dim"])
    given = {}
    for key in _keys(f"{name}_param_"):
        ours = key
        for theirs, mine in OURS:
            ours = ours.replace(theirs, mine)
        given[ours] = tensor("afd", f"{name}_param_{key}")
    missing, unexpected = attention.double().load_state_dict(given, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert not unexpected
    return attention.train(CASES[name]["bn_mode"].startswith("train"))


def _keys(prefix: str) -> list[str]:
    with np.load(FOLDER / "afd.npz") as arrays:
        return [key.removeprefix(prefix) for key in arrays.files if key.startswith(prefix)]


def by_hand(student: Sequence[Tensor], teacher: Sequence[Tensor], p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return loss and attention in train mode from the formulas, pair by pair, with plain tensors as parameters."""

    def embed(x: Tensor, name: str) -> Tensor:
        y = x @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"]
        y = (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()
        return y * p[f"{name}.1.weight"] + p[f"{name}.1.bias"]

    n, width = len(student[0]), p["p_s"].shape[1]
    q = [embed(t.mean((2, 3)), f"queries.{i}") for i, t in enumerate(teacher)]
    k = [embed(s.mean((2, 3)), f"keys.{i}").clamp_min(0) for i, s in enumerate(student)]
    b = embed(torch.stack(k, 1).reshape(n * len(k), width), "bilinear").reshape(n, len(k), len(q), width)
    total, attention = torch.zeros(n, dtype=p["p_s"].dtype), []
    for i, t in enumerate(teacher):
        scores = [(b[:, j, i] * q[i]).sum(1) + p["p_t"][i] @ p["p_s"][j] for j in range(len(k))]
        attention.append(torch.softmax(torch.stack(scores, 1) / width**0.5, 1))
        v = t.pow(2).mean(1).flatten(1)
        v = v / v.norm(dim=1, keepdim=True)
        for j, s in enumerate(student):
            u = F.adaptive_avg_pool2d(s.pow(2).mean(1), t.shape[2:]).flatten(1)
            u = u / u.norm(dim=1, keepdim=True)
            total = total + attention[i][:, j] * (u - v).pow(2).mean(1)
    return total.mean(), torch.stack(attention, 1)


def pair(batch: int = 6, sizes: Sequence[int] = (8, 4)) -> tuple[list[Tensor], list[Tensor]]:
    """Return random maps after ReLU of a narrower student and a wider teacher with two layers a size."""
    student = [torch.randn(batch, 3 + i, n, n).relu() for i, n in enumerate(sizes)]
    return student, [torch.randn(batch, 5 + i, n, n).relu() for n in sizes for i in range(2)]


def step(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Step:
    outputs = [
        Output(None, {f"{name}{i}": x for i, x in enumerate(side)})
        for name, side in zip("st", (student, teacher), strict=True)
    ]
    return Step(*outputs, None, lambda out: out)


def method(example: Step, **settings: Any) -> AFD:
    made = AFD(list(example.student.taps), list(example.teacher.taps), **settings)
    made.setup(example, None)
    return made


@pytest.mark.parametrize("name", CASES)
def test_values_attention_and_gradients_are_the_official_ones(name: str) -> None:
    student, teacher, attend = maps(name, "s"), maps(name, "t"), official(name)
    attention = attend(student, teacher)
    losses = afd_loss(student, teacher, attention)
    assert torch.allclose(attention, tensor("afd", f"{name}_attention_bts"), rtol=0, atol=1e-12)
    assert torch.allclose(losses, tensor("afd", f"{name}_per_teacher_loss"), rtol=0, atol=1e-12)
    assert losses.sum().item() == pytest.approx(tensor("afd", f"{name}_total").item(), abs=1e-12)
    assert losses.sum().item() == pytest.approx(CASES[name]["np_total"], abs=1e-12)
    losses.sum().backward()
    for i, x in enumerate(student):
        if f"grad_s{i}" in _keys(f"{name}_"):
            assert torch.allclose(x.grad, tensor("afd", f"{name}_grad_s{i}"), rtol=1e-9, atol=1e-15)


def test_the_vectors_hold_gradients() -> None:
    assert {key for key in _keys("case0_") if key.startswith("grad")} == {"grad_s0", "grad_s1"}


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["bn_mode"].startswith("train")])
def test_parameter_gradients_are_those_of_the_formulas(name: str) -> None:
    student, teacher, attend = maps(name, "s"), maps(name, "t"), official(name)
    afd_loss(student, teacher, attend(student, teacher)).sum().backward()
    leaves = {key: value.detach().clone().requires_grad_() for key, value in attend.named_parameters()}
    again = maps(name, "s")
    loss, _ = by_hand(again, teacher, leaves)
    loss.backward()
    assert loss.item() == pytest.approx(tensor("afd", f"{name}_total").item(), abs=1e-12)
    for key, parameter in attend.named_parameters():
        expected = leaves[key].grad
        assert torch.allclose(parameter.grad, expected, rtol=1e-9, atol=1e-14 + 1e-9 * float(expected.abs().max())), key
    for mine, theirs in zip(student, again, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-9, atol=1e-15)


def test_six_by_six_layers_at_the_official_width_follow_the_formulas() -> None:
    sizes = (16, 16, 8, 8, 4, 4)
    student = [torch.randn(4, 3 + i, n, n, dtype=torch.float64).requires_grad_() for i, n in enumerate(sizes)]
    teacher = [torch.randn(4, 6 + i, n, n, dtype=torch.float64) for i, n in enumerate(sizes)]
    attend = Attention([x.shape[1] for x in student], [x.shape[1] for x in teacher], 128).double()
    expected, weights = by_hand(student, teacher, dict(attend.named_parameters()))
    attention = attend(student, teacher)
    assert torch.allclose(attention, weights, rtol=0, atol=1e-12)
    assert afd_loss(student, teacher, attention).sum().item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_pairs_error_is_two_minus_two_cosines_over_the_positions() -> None:
    student, teacher = torch.rand(2, 3, 5, 8, 4, dtype=torch.float64)
    u, v = (x.square().mean(1).flatten(1) for x in (student, teacher))
    expected = (2 - 2 * F.cosine_similarity(u, v)).mean() / 32
    found = afd_loss([student], [teacher], torch.ones(3, 1, 1, dtype=torch.float64))
    assert found.item() == pytest.approx(expected.item(), abs=1e-14)
    cosine = afd_loss([student], [teacher], torch.ones(3, 1, 1, dtype=torch.float64), "cosine")
    assert cosine.item() == pytest.approx(16 * expected.item(), abs=1e-13)


def test_every_teacher_layer_keeps_a_weight_of_one_and_may_choose_the_closest_student() -> None:
    student, teacher = pair()
    made = method(step(student, teacher))
    attention = made.attend(step(student, teacher))
    assert torch.allclose(attention.sum(2), torch.ones(6, 4))
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    before = float(made(step(student, teacher))["afd"].detach())
    for _ in range(50):
        optimizer.zero_grad()
        made(step(student, teacher))["afd"].backward()
        optimizer.step()
    assert float(made(step(student, teacher))["afd"].detach()) < before
    entropy, use = attention_use(made.attend(step(student, teacher)))
    assert 0 <= float(entropy) <= 0.6932
    assert float(use.sum()) == pytest.approx(1.0, abs=1e-5)


def test_layers_of_one_size_share_their_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official lookup compares whole shapes, so a teacher layer of other width pools every student map again."""
    student, teacher = pair(sizes=(8, 4))
    expected = afd_loss(student, teacher, torch.full((6, 4, 2), 0.5))
    pooled: list[tuple[int, int]] = []
    pool = F.adaptive_avg_pool2d

    def count(x: Tensor, size: tuple[int, int]) -> Tensor:
        pooled.append(size)
        return pool(x, size)

    monkeypatch.setattr(F, "adaptive_avg_pool2d", count)
    assert torch.equal(afd_loss(student, teacher, torch.full((6, 4, 2), 0.5)), expected)
    assert sorted(pooled) == [(4, 4), (8, 8)]  # each student map once to the size that is not its own


def test_a_batch_of_one_is_refused_by_the_method() -> None:
    """Inside PyTorch it is "Expected more than 1 value per channel"."""
    student, teacher = pair()
    made = method(step(student, teacher))
    one = step([x[:1] for x in student], [x[:1] for x in teacher])
    with pytest.raises(UserError, match="the batch has 1 item, but batch norm needs at least 2 per process"):
        made(one)
    assert made.eval()(one)["afd"].isfinite()


def test_an_items_loss_depends_on_its_batch() -> None:
    """Documented, and why no loss per item is offered: queries and keys are normalised over the batch."""
    student, teacher = pair()
    attend = Attention([3, 4], [5, 6, 5, 6], 8)
    whole = attend(student, teacher)[:3]
    half = attend([x[:3] for x in student], [x[:3] for x in teacher])
    assert (whole - half).abs().max() > 1e-3
    assert afd_loss(student, teacher, attend(student, teacher)).shape == (4,)


def test_nothing_is_built_before_one_real_batch() -> None:
    """The official code finds shapes by a pass over random noise through both networks, in train mode."""
    student, teacher = small_cnn(width=4), small_cnn(width=6)
    made = AFD()
    assert not list(made.parameters())
    before = {key: value.clone() for key, value in student.state_dict().items()}
    distiller = Distiller(student, Network(teacher), made, Classification(num_classes=10))
    with pytest.raises(UserError, match=r"not built yet; call distiller.setup\(batch\)"):
        distiller((torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.long)))
    student.load_state_dict(before)
    distiller.setup((torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.long)))
    assert {tuple(p.shape) for n, p in made.named_parameters() if n.startswith("attention.keys") and p.ndim == 2} == {
        (128, 4), (128, 8), (128, 16),
    }  # fmt: skip
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_train_mode_never_reaches_the_teacher() -> None:
    """The official loop sets every module to train mode, and then the last one, the teacher, back."""
    teacher = small_cnn(width=6)
    distiller = Distiller(small_cnn(width=4), Network(teacher), AFD(), Classification(num_classes=10))
    batch = (torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.long))
    distiller.setup(batch)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    sum(distiller.train()(batch).values()).backward()
    assert distiller.method.attention.bilinear[1].training
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("dead", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_dead_map_is_a_zero_vector_in_every_precision(dead: str, dtype: torch.dtype) -> None:
    """In fp16 the official 1e-12 rounds to 0, and the map to NaN."""
    student, teacher = ([x.to(dtype) for x in side] for side in pair())
    if dead != "teacher":
        student[0] = torch.zeros_like(student[0])
    if dead != "student":
        teacher[0] = torch.zeros_like(teacher[0])
    student = [x.requires_grad_() for x in student]
    made = method(step(student, teacher))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(step(student, teacher))["afd"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in student)
    assert all(p.grad.isfinite().all() for p in made.parameters())
    assert values(energies([torch.zeros(2, 3, 4, 4, dtype=dtype)])).abs().max() == 0


def test_squares_merge_signs_so_taps_belong_after_relu() -> None:
    """Documented: a map before its ReLU looks like its negative, and its mean over a batch-normed map is near 0."""
    before = nn.functional.batch_norm(torch.randn(64, 3, 8, 8), None, None, training=True)
    assert torch.equal(values(energies([before])), values(energies([-before])))
    assert before.mean((0, 2, 3)).abs().max() < 1e-6
    assert before.relu().mean((0, 2, 3)).min() > 0.3


def built(spec: dict[str, Any]) -> Any:
    module, _, name = spec["class_path"].rpartition(".")
    return vars(importlib.import_module(module))[name](**spec.get("init_args", {}))


@pytest.mark.parametrize("kind", ["afd", "rtk"])
@pytest.mark.parametrize("data", ["digits", "fashion-mnist", "cifar100"])
def test_the_taps_of_the_recipes_are_after_relu(data: str, kind: str) -> None:
    size = {"digits": 8, "fashion-mnist": 28, "cifar100": 32}[data]
    images = torch.rand(2, 3 if size == 32 else 1, size, size)
    recipes = [yaml.safe_load(path.read_text()) for path in sorted((RECIPES / data).glob(f"{kind}*.yaml"))]
    assert recipes
    for recipe in (recipe for recipe in recipes if "teacher" in recipe):
        teacher = yaml.safe_load((RECIPES / data / recipe["teacher"]["recipe"]).read_text())
        alone = recipe["method"]["init_args"]
        taps = alone.get("methods", [{"init_args": alone}])[0]["init_args"]
        for network, names in ((recipe["student"], taps["student_taps"]), (teacher["student"], taps["teacher_taps"])):
            with torch.no_grad():
                recorded = Taps(built(network["network"]), names)(images).taps
            assert all(x.min() >= 0 for x in recorded.values()), names
            assert all(x.shape[-1] > 1 for x in recorded.values()), names


def test_a_pre_activation_block_is_tapped_after_the_next_norm_and_relu() -> None:
    network, images = wrn_16_2(num_classes=10), torch.randn(2, 3, 32, 32)
    taps = Taps(network, ["stage1.0", "stage1.1.activate", "stage3.1", "last"])(images).taps
    assert taps["stage1.0"].min() < 0
    assert taps["stage3.1"].min() < 0
    assert torch.equal(taps["stage1.1.activate"], network.stage1[1].activate.train()(taps["stage1.0"]))
    assert taps["last"].min() == 0


def test_the_papers_loss_is_cross_entropy_and_kd_and_afd() -> None:
    together = Together([AFD(), KD(temperature=4.0, weight=0.9, task_weight=1.0)])
    assert together.task_weight == 1.0
    batch = (torch.rand(6, 1, 28, 28), torch.randint(10, (6,)))
    distiller = Distiller(small_cnn(width=4), Network(small_cnn(width=6)), together, Classification(num_classes=10))
    distiller.setup(batch)
    assert list(distiller(batch)) == ["task", "afd", "kd"]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ([torch.rand(4, 3, 8, 8)], [torch.rand(4, 5, 1, 1)], "the teacher's layer 't0' gives a 1×1 map"),
        ([torch.rand(4, 3, 8, 8)], [torch.rand(3, 5, 8, 8)], "the layer 't0' gives 3 items and 's0' 4"),
        ([torch.rand(4, 3)], [torch.rand(4, 5, 8, 8)], r"the layer 's0' gives \(4, 3\) of torch.float32; tap feature"),
        ([torch.rand(4, 3, 8, 8)], [torch.ones(4, 5, 8, 8).long()], "the layer 't0' gives .* of torch.int64"),
        ([torch.rand(0, 3, 8, 8)], [torch.rand(0, 5, 8, 8)], r"the layer 's0' gives \(0, 3, 8, 8\)"),
        ([torch.rand(4, 3, 8, 8)], [torch.full((4, 5, 8, 8), torch.nan)], "the teacher's tap 't0' holds NaN"),
        ([torch.rand(4, 3, 8, 8)], [torch.rand(4, 4, 4, 9)], r"the pair s0, t0 gives .* channels last"),
        ([torch.full((4, 3, 8, 8), torch.inf)], [torch.rand(4, 5, 8, 8)], "the student's tap 's0' holds NaN or inf"),
    ],
)
def test_layers_that_do_not_fit_are_named(student: list[Tensor], teacher: list[Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        method(step(student, teacher))


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="AFD needs student_taps and teacher_taps"):
        AFD(student_taps=[])
    with pytest.raises(UserError, match="attention needs layers of both"):
        afd_loss([], [torch.rand(2, 3, 4, 4)], torch.ones(2, 1, 1))
    with pytest.raises(UserError, match=r"distance is one of \('mean', 'cosine'\), got 'l1'"):
        afd_loss([torch.rand(2, 3, 4, 4)], [torch.rand(2, 3, 4, 4)], torch.ones(2, 1, 1), "l1")
    with pytest.raises(UserError, match=r"the layer 'student\[0\]' gives"):
        afd_loss([torch.rand(2, 3)], [torch.rand(2, 3, 4, 4)], torch.ones(2, 1, 1))
