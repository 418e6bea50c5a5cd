"""RTK-style against the numbers of our own design, which are never to be quoted as the paper's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.methods.harness import FOLDER, cases, make_step, setup_method, tensor
from tutelage.core import Method, Step
from tutelage.errors import UserError
from tutelage.methods import AFD, RTK, afd_loss, rtk_loss
from tutelage.methods._attention_maps import attention_map, attention_vectors
from tutelage.methods.rtk import LayerScores, StageAttention, stage_attention, stages_of

EXAMPLES: dict[str, Callable[[], Method]] = {
    "rtk": RTK,
    "rtk covering": lambda: RTK(distance="mean", top_k=None, coverage=0.5),
}

CASES = cases("rtk_design")


def case_features(name: str, side: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = CASES[name]["student_shapes" if side == "s" else "teacher_shapes"]
    return [tensor("rtk_design", f"{name}_{side}{index}", dtype) for index in range(len(shapes))]


def case_scores(name: str) -> LayerScores:
    """Return our module with a case's weights."""
    student_channels = [shape[1] for shape in CASES[name]["student_shapes"]]
    teacher_channels = [shape[1] for shape in CASES[name]["teacher_shapes"]]
    module = LayerScores(student_channels, teacher_channels, CASES[name]["d"]).double()
    weights = {
        "student_positions": tensor("rtk_design", f"{name}_param_p_s"),
        "teacher_positions": tensor("rtk_design", f"{name}_param_p_t"),
    }
    parts = {"w": "0.weight", "b": "0.bias", "g": "1.weight", "o": "1.bias"}
    layers = [("s", "queries", len(student_channels)), ("t", "keys", len(teacher_channels))]
    for side, part_list, count in layers:
        for i in range(count):
            for letter, part in parts.items():
                array = tensor("rtk_design", f"{name}_param_{letter}{side}{i}")
                weights[f"{part_list}.{i}.{part}"] = array
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert all("running" in key or "num_batches" in key for key in missing)
    assert not unexpected
    return module


def case_attention(name: str) -> StageAttention:
    student, teacher = case_features(name, "s"), case_features(name, "t")
    scores = case_scores(name)(student, teacher)
    return stage_attention(scores, stages_of(teacher).values(), top_k=CASES[name]["topk_groups"])


def feature_step(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Step:
    """Return a step whose features are called s0, s1, ... and t0, t1, ..."""
    return make_step(
        student_features={f"s{i}": feature for i, feature in enumerate(student)},
        teacher_features={f"t{i}": feature for i, feature in enumerate(teacher)},
    )


def random_step(batch: int = 6, sizes: Sequence[int] = (8, 4)) -> Step:
    """Return maps after ReLU of a narrow student and a wider teacher with two layers a size."""
    student = [torch.randn(batch, 3 + i, n, n).relu() for i, n in enumerate(sizes)]
    teacher = [torch.randn(batch, 5 + i, n, n).relu() for n in sizes for i in range(2)]
    return feature_step(student, teacher)


def rtk_for(step: Step, **settings: Any) -> RTK:
    """Return RTK on all features of a step, set up."""
    method = RTK(list(step.student.features), list(step.teacher.features), **settings)
    return setup_method(method, step)


@pytest.mark.parametrize("name", CASES)
def test_attention_and_loss_are_the_designs(name: str) -> None:
    student, teacher = case_features(name, "s"), case_features(name, "t")
    attention = case_attention(name)
    assert list(stages_of(teacher).values()) == CASES[name]["groups"]
    for i, weights in enumerate(attention.layer_weights):
        expected = tensor("rtk_design", f"{name}_within_group{i}_weights_bsj")
        assert torch.allclose(weights, expected, rtol=0, atol=1e-12)
    expected = tensor("rtk_design", f"{name}_group_logits_bsg")
    assert torch.allclose(attention.stage_scores, expected, rtol=0, atol=1e-12)
    expected = tensor("rtk_design", f"{name}_group_attention_bsg")
    assert torch.allclose(attention.stage_weights, expected, rtol=0, atol=1e-12)
    scores = case_scores(name)(student, teacher)
    top_k = CASES[name]["topk_groups"]
    loss = rtk_loss(student, teacher, scores, distance="mean", top_k=top_k)
    assert loss.item() == pytest.approx(tensor("rtk_design", f"{name}_loss").item(), abs=1e-12)


def test_the_vectors_say_that_they_are_no_ones_published_numbers() -> None:
    status = json.loads((FOLDER / "rtk_design.json").read_text())["status"]
    assert "Never present them as the paper's numbers" in status
    page = Path(__file__).parents[2] / "docs/methods/rtk.md"
    for text in (RTK.__doc__, " ".join(page.read_text().split())):
        assert "not the authors' equations" in text
        assert "No published number is claimed" in text


@pytest.mark.parametrize("name", CASES)
def test_a_stages_score_is_that_of_its_representative_key(name: str) -> None:
    module, student, teacher = case_scores(name), case_features(name, "s"), case_features(name, "t")
    queries, keys, attention = module.queries(student), module.keys(teacher), case_attention(name)
    for g, layers in enumerate(CASES[name]["groups"]):
        weights = attention.layer_weights[g]
        key = weights @ keys[:, layers]
        position = weights * (module.student_positions @ module.teacher_positions[layers].T)
        score = ((queries * key).sum(-1) + position.sum(-1)) / queries.shape[-1] ** 0.5
        assert torch.allclose(attention.stage_scores[..., g], score, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", ["mean", "cosine"])
def test_gradients_are_those_of_finite_differences(distance: str) -> None:
    module = LayerScores([2, 3], [2, 2, 3], 4).double()
    student = [
        torch.rand(3, 2, 4, 4, dtype=torch.float64),
        torch.rand(3, 3, 2, 2, dtype=torch.float64),
    ]
    teacher = [torch.rand(3, 2, 4, 4, dtype=torch.float64) for _ in range(2)]
    teacher += [torch.rand(3, 3, 2, 2, dtype=torch.float64)]

    def loss(first: Tensor, second: Tensor, positions: Tensor) -> Tensor:
        parameters = dict(module.named_parameters()) | {"student_positions": positions}
        scores = torch.func.functional_call(module, parameters, ([first, second], teacher))
        return rtk_loss([first, second], teacher, scores, distance=distance, top_k=1)

    leaves = [*student, module.student_positions]
    inputs = [x.detach().clone().requires_grad_() for x in leaves]
    attention = stage_attention(module(student, teacher), [[0, 1], [2]])
    assert attention.stage_scores.diff(dim=-1).abs().min() > 1e-4  # away from ties
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7)


def test_stages_are_keyed_by_height_and_width_alone() -> None:
    teacher = [
        torch.zeros(2, 4, 8, 8),
        torch.zeros(2, 6, 4, 4),
        torch.zeros(2, 9, 8, 8),
        torch.zeros(2, 4, 8, 4),
    ]
    assert stages_of(teacher) == {(8, 8): [0, 2], (4, 4): [1], (8, 4): [3]}


def test_the_filter_keeps_the_largest_and_the_first_of_equals() -> None:
    scores = torch.tensor([[[1.0, 3.0, 2.0, 3.0]], [[0.0, 0.0, 0.0, 0.0]]])
    stages = [[0], [1], [2], [3]]
    best_two = stage_attention(scores, stages, top_k=2).stage_weights
    assert torch.allclose(best_two[0, 0], torch.tensor([0.0, 0.5, 0.0, 0.5]))
    assert torch.allclose(best_two[1, 0], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    best = stage_attention(scores, stages, top_k=1).stage_weights
    assert torch.equal(best[:, 0].argmax(1), torch.tensor([1, 0]))
    # An unstable sort mixes as many equal stages as these.
    equal = stage_attention(torch.zeros(1, 1, 64), [[i] for i in range(64)], top_k=5).stage_weights
    assert torch.equal(equal[0, 0].nonzero().flatten(), torch.arange(5))
    unfiltered = stage_attention(scores, stages, top_k=None).stage_weights
    assert torch.allclose(unfiltered, stage_attention(scores, stages, top_k=4).stage_weights)
    assert torch.allclose(unfiltered.sum(-1), torch.ones(2, 1))


def test_one_layer_and_one_stage_are_plain_attention_transfer() -> None:
    student, teacher = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    scores = torch.randn(4, 1, 1).double()
    loss = rtk_loss([student], [teacher], scores, distance="mean", top_k=1)
    expected = afd_loss([student], [teacher], torch.ones(4, 1, 1, dtype=torch.float64)).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-15)


@pytest.mark.parametrize(("distance", "chosen"), [("mean", 32), ("cosine", 8)])
def test_mean_favors_large_maps_whatever_they_show_and_cosine_the_ones_that_match(
    distance: str, chosen: int
) -> None:
    """Why `cosine` is the default: of the maps that attention is trained on, only 8×8 matches."""
    assert RTK().distance == "cosine"
    student = torch.rand(16, 4, 8, 8)
    teacher = [
        torch.rand(16, 4, 32, 32) ** 2,
        torch.rand(16, 4, 16, 16) ** 2,
        student + 0.5 * torch.rand(16, 4, 8, 8),
    ]
    step = feature_step([student], teacher)
    method = rtk_for(step, distance=distance, top_k=None, qk_dim=8)
    errors = []
    for feature in teacher:
        size = (feature.shape[2], feature.shape[3])
        u = attention_vectors([attention_map(student)], size)
        v = attention_vectors([attention_map(feature)])
        errors.append((u - v).square().sum(-1).mean())
    assert errors[2] < 0.2 * min(errors[:2])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (method(step)["rtk"] * 100).backward()
        optimizer.step()
    use = method.attend(step).stage_weights.mean((0, 1))
    assert [32, 16, 8][int(use.argmax())] == chosen


def test_the_distances_differ_by_half_the_positions() -> None:
    student, teacher = [torch.rand(4, 3, 8, 4)], [torch.rand(4, 5, 8, 4), torch.rand(4, 6, 8, 4)]
    scores = torch.randn(4, 1, 2)
    mean = rtk_loss(student, teacher, scores, distance="mean", top_k=None)
    cosine = rtk_loss(student, teacher, scores, distance="cosine", top_k=None)
    assert cosine.item() == pytest.approx(16 * mean.item(), rel=1e-4)


def test_coverage_mixes_the_loss_of_afd_in() -> None:
    step = random_step()
    without = rtk_for(step)
    assert set(without(step)) == {"rtk"}
    assert not any("coverage" in name for name, _ in without.named_parameters())
    mixed = rtk_for(step, coverage=0.25)
    mixed.scores.load_state_dict(without.scores.state_dict())
    terms = mixed.eval()(step)
    assert torch.isclose(terms["rtk"], 0.75 * without.eval()(step)["rtk"])
    whole = rtk_for(step, coverage=1.0, distance="mean", weight=200.0)
    assert set(whole(step)) == {"rtk/coverage"}
    afd = AFD(list(step.student.features), list(step.teacher.features))
    setup_method(afd, step)
    afd.attention.load_state_dict(whole.coverage_attention.state_dict())
    assert torch.allclose(whole.eval()(step)["rtk/coverage"], afd.eval()(step)["afd"])


def test_a_collapse_shows_in_the_use_of_the_stages() -> None:
    step = random_step()
    weights = rtk_for(step, top_k=1).attend(step).stage_weights.detach()
    assert torch.special.entr(weights).sum(-1).mean() == 0
    assert weights.mean((0, 1)).sum().item() == pytest.approx(1.0)
    weights = rtk_for(step, top_k=None).attend(step).stage_weights.detach()
    assert 0 < float(torch.special.entr(weights).sum(-1).mean()) <= 0.6932


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", ["mean", "cosine"])
def test_dead_maps_are_safe_in_half_precision(dtype: torch.dtype, distance: str) -> None:
    student = [
        torch.zeros(4, 3, 8, 8, dtype=dtype).requires_grad_(),
        torch.rand(4, 4, 4, 4).to(dtype).requires_grad_(),
    ]
    teacher = [
        torch.rand(4, 5, 8, 8).to(dtype),
        torch.zeros(4, 6, 8, 8, dtype=dtype),
        torch.zeros(4, 6, 4, 4, dtype=dtype),
    ]
    step = feature_step(student, teacher)
    method = rtk_for(step, distance=distance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(step)["rtk"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in student)


def test_a_batch_of_one_is_refused_by_the_method() -> None:
    step = random_step()
    single = feature_step(
        [x[:1] for x in step.student.features.values()],
        [x[:1] for x in step.teacher.features.values()],
    )
    with pytest.raises(UserError, match="the batch has 1 item"):
        rtk_for(step, coverage=0.5)(single)


@pytest.mark.parametrize("coverage", [0.0, 1.0])
@pytest.mark.parametrize("top_k", [0, 3])
def test_more_stages_than_there_are_are_refused(top_k: int, coverage: float) -> None:
    message = f"top_k is 1 to 2, the number of the teacher's stages, or None; got {top_k}"
    with pytest.raises(UserError, match=message):
        rtk_for(random_step(), top_k=top_k, coverage=coverage)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"coverage is a share in \[0, 1\], got 1.5"):
        RTK(coverage=1.5)
    with pytest.raises(UserError, match="distance is 'mean' or 'cosine', got 'l2'"):
        RTK(distance="l2")
    with pytest.raises(UserError, match="RTK needs student_layers and teacher_layers"):
        RTK(teacher_layers=())


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (torch.rand(4, 5, 1, 1), "the teacher's layer 't0' gives a 1×1 map"),
        (torch.rand(3, 5, 8, 8), "the layer 't0' gives 3 items and 's0' 4"),
        (torch.full((4, 5, 8, 8), torch.nan), "the teacher's feature 't0' holds NaN"),
    ],
    ids=["1×1", "batches", "NaN"],
)
def test_layers_that_do_not_fit_are_named(teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rtk_for(feature_step([torch.rand(4, 3, 8, 8)], [teacher]), top_k=1)


def test_a_step_before_setup_is_refused() -> None:
    step = feature_step([torch.rand(4, 3, 8, 8)], [torch.rand(4, 5, 8, 8)])
    with pytest.raises(UserError, match="not built yet"):
        RTK(["s0"], ["t0"], top_k=1)(step)


def test_normalizing_the_merged_value_makes_it_a_unit_vector() -> None:
    teacher = [torch.rand(3, 4, 8, 8, dtype=torch.float64) for _ in range(2)]
    scores = torch.randn(3, 1, 2, dtype=torch.float64)
    vectors = attention_vectors([attention_map(feature) for feature in teacher])
    merged = F.normalize(scores.softmax(-1) @ vectors, dim=2)
    student = [teacher[0].clone()]
    u = attention_vectors([attention_map(student[0])])
    expected = (1 - (u * merged).sum(-1)).mean()
    loss = rtk_loss(student, teacher, scores, top_k=1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-14)
