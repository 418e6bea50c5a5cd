"""AFD against the numbers of the official code, and where that code must not be followed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import FOLDER, cases, make_step, setup_method, tensor
from tutelage.core import (
    CombinedMethod,
    Distiller,
    FeatureTaps,
    FrozenTeacher,
    Method,
    Step,
)
from tutelage.errors import UserError
from tutelage.methods import AFD, KD, afd_loss
from tutelage.methods._attention import attended_distances
from tutelage.methods.afd import Attention
from tutelage.models import small_cnn, wrn_16_2
from tutelage.recipes._yaml import read_merged
from tutelage.recipes.shipped import ROOT, find_recipe, methods_in
from tutelage.tasks import Classification

EXAMPLES: dict[str, Callable[[], Method]] = {"afd": AFD}

CASES = cases("afd")
TRAINING_CASES = [name for name in CASES if CASES[name]["bn_mode"].startswith("train")]

PARAMETER_NAMES = (
    ("attention__linear_trans_s__key_layer__", "keys."),
    ("attention__linear_trans_t__query_layer__", "queries."),
    ("attention__linear_trans_s__bilinear__", "bilinear."),
    ("attention__p_t", "teacher_positions"),
    ("attention__p_s", "student_positions"),
    ("linear__", "0."),
    ("bn__", "1."),
    ("__", "."),
)
"""Parts of the official parameter names, and ours in their place."""


def case_features(name: str, side: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return a case's feature maps; the student's ("s") are leaves."""
    shapes = CASES[name]["student_shapes" if side == "s" else "teacher_shapes"]
    features = [tensor("afd", f"{name}_{side}{index}", dtype) for index in range(len(shapes))]
    if side == "s":
        features = [feature.requires_grad_() for feature in features]
    return features


def official_attention(name: str) -> Attention:
    """Return our attention with a case's official weights."""
    attention = Attention(
        student_channels=[shape[1] for shape in CASES[name]["student_shapes"]],
        teacher_channels=[shape[1] for shape in CASES[name]["teacher_shapes"]],
        qk_dim=CASES[name]["qk_dim"],
    )
    weights = {}
    for official_name in array_names(f"{name}_param_"):
        our_name = official_name
        for official_part, our_part in PARAMETER_NAMES:
            our_name = our_name.replace(official_part, our_part)
        weights[our_name] = tensor("afd", f"{name}_param_{official_name}")
    missing, unexpected = attention.double().load_state_dict(weights, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert not unexpected
    return attention.train(CASES[name]["bn_mode"].startswith("train"))


def array_names(prefix: str) -> list[str]:
    with np.load(FOLDER / "afd.npz") as arrays:
        return [key.removeprefix(prefix) for key in arrays.files if key.startswith(prefix)]


def by_hand(
    student: Sequence[Tensor], teacher: Sequence[Tensor], p: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return loss and attention in train mode from the formulas, pair by pair.

    The parameters are plain tensors by the names in our `Attention`.
    """

    def embed(x: Tensor, name: str) -> Tensor:
        y = x @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"]
        y = (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()
        return y * p[f"{name}.1.weight"] + p[f"{name}.1.bias"]

    p_s = p["student_positions"]
    p_t = p["teacher_positions"]
    n, qk_dim = len(student[0]), p_s.shape[1]
    queries = [embed(t.mean((2, 3)), f"queries.{i}") for i, t in enumerate(teacher)]
    keys = [embed(s.mean((2, 3)), f"keys.{i}").clamp_min(0) for i, s in enumerate(student)]
    stacked = torch.stack(keys, 1).reshape(n * len(keys), qk_dim)
    bilinear = embed(stacked, "bilinear").reshape(n, len(keys), len(queries), qk_dim)
    total = torch.zeros(n, dtype=p_s.dtype)
    attention = []
    for i, t in enumerate(teacher):
        scores = []
        for j in range(len(keys)):
            scores.append((bilinear[:, j, i] * queries[i]).sum(1) + p_t[i] @ p_s[j])
        attention.append(torch.softmax(torch.stack(scores, 1) / qk_dim**0.5, 1))
        v = t.pow(2).mean(1).flatten(1)
        v = v / v.norm(dim=1, keepdim=True)
        for j, s in enumerate(student):
            u = F.adaptive_avg_pool2d(s.pow(2).mean(1), t.shape[2:]).flatten(1)
            u = u / u.norm(dim=1, keepdim=True)
            total = total + attention[i][:, j] * (u - v).pow(2).mean(1)
    return total.mean(), torch.stack(attention, 1)


def random_features(
    batch: int = 6, sizes: Sequence[int] = (8, 4)
) -> tuple[list[Tensor], list[Tensor]]:
    """Return maps after ReLU of a narrow student and a wider teacher with two layers a size."""
    student = [torch.randn(batch, 3 + i, n, n).relu() for i, n in enumerate(sizes)]
    teacher = [torch.randn(batch, 5 + i, n, n).relu() for n in sizes for i in range(2)]
    return student, teacher


def feature_step(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Step:
    """Return a step whose features are called s0, s1, ... and t0, t1, ..."""
    return make_step(
        student_features={f"s{i}": feature for i, feature in enumerate(student)},
        teacher_features={f"t{i}": feature for i, feature in enumerate(teacher)},
    )


def afd_for(step: Step, **settings: Any) -> AFD:
    """Return AFD on all features of a step, set up."""
    method = AFD(list(step.student.features), list(step.teacher.features), **settings)
    return setup_method(method, step)


@pytest.mark.parametrize("name", CASES)
def test_values_attention_and_gradients_are_the_official_ones(name: str) -> None:
    student, teacher = case_features(name, "s"), case_features(name, "t")
    attention = official_attention(name)(student, teacher)
    losses = afd_loss(student, teacher, attention)
    assert torch.allclose(attention, tensor("afd", f"{name}_attention_bts"), rtol=0, atol=1e-12)
    assert torch.allclose(losses, tensor("afd", f"{name}_per_teacher_loss"), rtol=0, atol=1e-12)
    assert losses.sum().item() == pytest.approx(tensor("afd", f"{name}_total").item(), abs=1e-12)
    assert losses.sum().item() == pytest.approx(CASES[name]["np_total"], abs=1e-12)
    losses.sum().backward()
    for i, x in enumerate(student):
        if f"grad_s{i}" in array_names(f"{name}_"):
            assert torch.allclose(x.grad, tensor("afd", f"{name}_grad_s{i}"), rtol=1e-9, atol=1e-15)


def test_the_vectors_hold_gradients() -> None:
    gradients = {key for key in array_names("case0_") if key.startswith("grad")}
    assert gradients == {"grad_s0", "grad_s1"}


@pytest.mark.parametrize("name", TRAINING_CASES)
def test_parameter_gradients_are_those_of_the_formulas(name: str) -> None:
    student, teacher = case_features(name, "s"), case_features(name, "t")
    module = official_attention(name)
    afd_loss(student, teacher, module(student, teacher)).sum().backward()
    leaves = {
        key: value.detach().clone().requires_grad_() for key, value in module.named_parameters()
    }
    student_by_hand = case_features(name, "s")
    loss, _ = by_hand(student_by_hand, teacher, leaves)
    loss.backward()
    assert loss.item() == pytest.approx(tensor("afd", f"{name}_total").item(), abs=1e-12)
    for key, parameter in module.named_parameters():
        expected = leaves[key].grad
        error = 1e-14 + 1e-9 * float(expected.abs().max())
        assert torch.allclose(parameter.grad, expected, rtol=1e-9, atol=error), key
    for actual, expected in zip(student, student_by_hand, strict=True):
        assert torch.allclose(actual.grad, expected.grad, rtol=1e-9, atol=1e-15)


def test_six_by_six_layers_at_the_official_width_follow_the_formulas() -> None:
    sizes = (16, 16, 8, 8, 4, 4)
    student, teacher = [], []
    for i, n in enumerate(sizes):
        student.append(torch.randn(4, 3 + i, n, n, dtype=torch.float64).requires_grad_())
        teacher.append(torch.randn(4, 6 + i, n, n, dtype=torch.float64))
    module = Attention([3, 4, 5, 6, 7, 8], [6, 7, 8, 9, 10, 11], 128).double()
    expected, weights = by_hand(student, teacher, dict(module.named_parameters()))
    attention = module(student, teacher)
    assert torch.allclose(attention, weights, rtol=0, atol=1e-12)
    loss = afd_loss(student, teacher, attention).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_a_pairs_error_is_two_minus_two_cosines_over_the_positions() -> None:
    student, teacher = torch.rand(2, 3, 5, 8, 4, dtype=torch.float64)
    u, v = (x.square().mean(1).flatten(1) for x in (student, teacher))
    expected = (2 - 2 * F.cosine_similarity(u, v)).mean() / 32
    attention = torch.ones(3, 1, 1, dtype=torch.float64)
    mean = afd_loss([student], [teacher], attention)
    assert mean.item() == pytest.approx(expected.item(), abs=1e-14)
    cosine = attended_distances([student], [teacher], attention, distance="cosine")
    assert cosine.item() == pytest.approx(16 * expected.item(), abs=1e-13)


def test_every_teacher_layer_keeps_a_weight_of_one_and_may_choose_the_closest_student() -> None:
    step = feature_step(*random_features())
    method = afd_for(step)
    assert torch.allclose(method.attend(step).sum(2), torch.ones(6, 4))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    before = float(method(step)["afd"].detach())
    for _ in range(50):
        optimizer.zero_grad()
        method(step)["afd"].backward()
        optimizer.step()
    assert float(method(step)["afd"].detach()) < before
    attention = method.attend(step).detach()
    entropy = torch.special.entr(attention).sum(-1).mean()
    assert 0 <= float(entropy) <= 0.6932
    assert float(attention.mean((0, 1)).sum()) == pytest.approx(1.0, abs=1e-5)


def test_layers_of_one_size_share_their_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official lookup compares whole shapes, and pools again for layers of another width."""
    student, teacher = random_features(sizes=(8, 4))
    attention = torch.full((6, 4, 2), 0.5)
    expected = afd_loss(student, teacher, attention)
    pooled_sizes: list[tuple[int, int]] = []
    pool = F.adaptive_avg_pool2d

    def count(x: Tensor, size: tuple[int, int]) -> Tensor:
        pooled_sizes.append(size)
        return pool(x, size)

    monkeypatch.setattr(F, "adaptive_avg_pool2d", count)
    assert torch.equal(afd_loss(student, teacher, attention), expected)
    # Each student map once, to the size that is not its own.
    assert sorted(pooled_sizes) == [(4, 4), (8, 8)]


def test_a_batch_of_one_is_refused_by_the_method() -> None:
    """Inside PyTorch it is "Expected more than 1 value per channel"."""
    student, teacher = random_features()
    method = afd_for(feature_step(student, teacher))
    single = feature_step([x[:1] for x in student], [x[:1] for x in teacher])
    message = "the batch has 1 item, but batch norm needs at least 2 per process"
    with pytest.raises(UserError, match=message):
        method(single)
    assert method.eval()(single)["afd"].isfinite()


def test_an_items_loss_depends_on_its_batch() -> None:
    """Documented, and why there is no loss per item: batch norm normalizes queries and keys."""
    student, teacher = random_features()
    module = Attention([3, 4], [5, 6, 5, 6], 8)
    whole = module(student, teacher)[:3]
    half = module([x[:3] for x in student], [x[:3] for x in teacher])
    assert (whole - half).abs().max() > 1e-3
    assert afd_loss(student, teacher, module(student, teacher)).shape == (4,)


def test_nothing_is_built_before_one_real_batch() -> None:
    """The official code finds shapes by random noise through both networks, in train mode."""
    student, teacher = small_cnn(width=4), small_cnn(width=6)
    method = AFD()
    assert not list(method.parameters())
    before = {key: value.clone() for key, value in student.state_dict().items()}
    task = Classification(num_classes=10)
    distiller = Distiller(student, FrozenTeacher(teacher), method, task)
    batch = (torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.long))
    with pytest.raises(UserError, match=r"not built yet; call distiller.setup\(batch\)"):
        distiller(batch)
    student.load_state_dict(before)
    distiller.setup(batch)
    key_shapes = set()
    for name, parameter in method.named_parameters():
        if name.startswith("attention.keys") and parameter.ndim == 2:
            key_shapes.add(tuple(parameter.shape))
    assert key_shapes == {(128, 4), (128, 8), (128, 16)}
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_train_mode_never_reaches_the_teacher() -> None:
    """The official loop puts all modules into train mode, then the last one, the teacher, back."""
    teacher = small_cnn(width=6)
    task = Classification(num_classes=10)
    distiller = Distiller(small_cnn(width=4), FrozenTeacher(teacher), AFD(), task)
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
    student, teacher = ([x.to(dtype) for x in side] for side in random_features())
    if dead != "teacher":
        student[0] = torch.zeros_like(student[0])
    if dead != "student":
        teacher[0] = torch.zeros_like(teacher[0])
    student = [x.requires_grad_() for x in student]
    step = feature_step(student, teacher)
    method = afd_for(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(step)["afd"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in student)
    assert all(p.grad.isfinite().all() for p in method.parameters())


def build(spec: Mapping[str, Any]) -> nn.Module:
    """Return the network of a recipe's `class_path` and `init_args`."""
    module, _, name = spec["class_path"].rpartition(".")
    network: nn.Module = getattr(importlib.import_module(module), name)(**spec.get("init_args", {}))
    return network


def method_arguments(spec: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the arguments of AFD or RTK in a recipe's section `method`, alone or combined."""
    arguments: Mapping[str, Any] = spec["init_args"]
    if "methods" in arguments:
        arguments = arguments["methods"][0]["init_args"]
        assert spec["init_args"]["methods"][0]["class_path"].endswith(kind.upper())
    return arguments


@pytest.mark.parametrize("kind", ["afd", "rtk"])
@pytest.mark.parametrize(
    ("setting", "channels", "size"),
    [
        ("digits", 1, 8),
        ("fashion-mnist", 1, 28),
        ("cifar100/resnet8x4", 3, 32),
        ("cifar100/wrn16_2", 3, 32),
    ],
)
def test_the_layers_of_the_recipes_are_after_relu(
    setting: str, channels: int, size: int, kind: str
) -> None:
    images = torch.rand(2, channels, size, size)
    folder = ROOT / "classification" / setting
    names = [name for name in methods_in(folder) if name.startswith(kind)]
    assert names
    for name in names:
        recipe = read_merged(folder / f"{name}.yaml")
        teacher = read_merged(find_recipe(recipe["teacher"]["recipe"], folder))
        arguments = method_arguments(recipe["method"], kind)
        for network, layers in (
            (recipe["student"]["model"], arguments["student_layers"]),
            (teacher["student"]["model"], arguments["teacher_layers"]),
        ):
            with torch.no_grad():
                features = FeatureTaps(build(network), layers)(images).features
            assert all(x.min() >= 0 for x in features.values()), name
            assert all(x.shape[-1] > 1 for x in features.values()), name


def test_a_pre_activation_block_is_tapped_after_the_next_norm_and_relu() -> None:
    network, images = wrn_16_2(num_classes=10), torch.randn(2, 3, 32, 32)
    layers = ["stage1.0", "stage1.1.activate", "stage3.1", "last"]
    features = FeatureTaps(network, layers)(images).features
    assert features["stage1.0"].min() < 0
    assert features["stage3.1"].min() < 0
    activated = network.stage1[1].activate.train()(features["stage1.0"])
    assert torch.equal(features["stage1.1.activate"], activated)
    assert features["last"].min() == 0


def test_the_papers_loss_is_cross_entropy_and_kd_and_afd() -> None:
    method = CombinedMethod([AFD(), KD(temperature=4.0, weight=0.9, task_weight=1.0)])
    assert method.task_weight == 1.0
    batch = (torch.rand(6, 1, 28, 28), torch.randint(10, (6,)))
    teacher = FrozenTeacher(small_cnn(width=6))
    distiller = Distiller(small_cnn(width=4), teacher, method, Classification(num_classes=10))
    distiller.setup(batch)
    assert list(distiller(batch)) == ["task", "afd", "kd"]


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        pytest.param(
            torch.rand(4, 3, 8, 8),
            torch.rand(4, 5, 1, 1),
            "the teacher's layer 't0' gives a 1×1 map",
            id="1×1",
        ),
        pytest.param(
            torch.rand(4, 3, 8, 8),
            torch.rand(3, 5, 8, 8),
            "the layer 't0' gives 3 items and 's0' 4",
            id="batches",
        ),
        pytest.param(
            torch.rand(4, 3),
            torch.rand(4, 5, 8, 8),
            r"the layer 's0' gives \(4, 3\) of torch.float32; tap feature",
            id="no map",
        ),
        pytest.param(
            torch.rand(4, 3, 8, 8),
            torch.ones(4, 5, 8, 8).long(),
            "the layer 't0' gives .* of torch.int64",
            id="integers",
        ),
        pytest.param(
            torch.rand(0, 3, 8, 8),
            torch.rand(0, 5, 8, 8),
            r"the layer 's0' gives \(0, 3, 8, 8\)",
            id="empty",
        ),
        pytest.param(
            torch.rand(4, 3, 8, 8),
            torch.full((4, 5, 8, 8), torch.nan),
            "the teacher's feature 't0' holds NaN",
            id="NaN",
        ),
        pytest.param(
            torch.rand(4, 3, 8, 8),
            torch.rand(4, 4, 4, 9),
            r"the pair s0, t0 gives .* channels last",
            id="channels last",
        ),
        pytest.param(
            torch.full((4, 3, 8, 8), torch.inf),
            torch.rand(4, 5, 8, 8),
            "the student's feature 's0' holds NaN or inf",
            id="infinity",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        afd_for(feature_step([student], [teacher]))


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="AFD needs student_layers and teacher_layers"):
        AFD(student_layers=[])
    with pytest.raises(UserError, match="qk_dim is the length of queries and keys"):
        AFD(qk_dim=0)
    feature, attention = torch.rand(2, 3, 4, 4), torch.ones(2, 1, 1)
    with pytest.raises(UserError, match="attention needs layers of both"):
        afd_loss([], [feature], attention)
    with pytest.raises(UserError, match="distance is 'mean' or 'cosine', got 'l1'"):
        attended_distances([feature], [feature], attention, distance="l1")
    with pytest.raises(UserError, match=r"the layer 'student\[0\]' gives"):
        afd_loss([torch.rand(2, 3)], [feature], attention)
