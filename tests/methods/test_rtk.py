"""RTK-style distillation against the numbers of our own design, which are never to be quoted as the paper's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.vectors import FOLDER, cases, tensor
from tutelage import AFD, RTK, Output, Step, UserError
from tutelage.methods import afd_loss, rtk_loss
from tutelage.methods.attention import attention_use
from tutelage.methods.energies import energies, values
from tutelage.methods.rtk import Scores
from tutelage.methods.stages import StageAttention, stage_attention, stages_of

CASES = cases("rtk_design")


def maps(name: str, side: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    count = len(CASES[name]["student_shapes" if side == "s" else "teacher_shapes"])
    return [tensor("rtk_design", f"{name}_{side}{i}", dtype) for i in range(count)]


def designed(name: str) -> Scores:
    """Return our module with a case's weights."""
    shapes = [[s[1] for s in CASES[name][f"{side}_shapes"]] for side in ("student", "teacher")]
    scores = Scores(shapes[0], shapes[1], CASES[name]["d"]).double()
    parts = {"w": "0.weight", "b": "0.bias", "g": "1.weight", "o": "1.bias"}
    given = {key: tensor("rtk_design", f"{name}_param_{key}") for key in ("p_s", "p_t")}
    for side, module, widths in (("s", "queries", shapes[0]), ("t", "keys", shapes[1])):
        for i in range(len(widths)):
            given |= {
                f"{module}.{i}.{mine}": tensor("rtk_design", f"{name}_param_{letter}{side}{i}")
                for letter, mine in parts.items()
            }
    missing, unexpected = scores.load_state_dict(given, strict=False)
    assert all("running" in key or "num_batches" in key for key in missing)
    assert not unexpected
    return scores


def heard(name: str) -> StageAttention:
    stages = list(stages_of(maps(name, "t")).values())
    return stage_attention(designed(name)(maps(name, "s"), maps(name, "t")), stages, CASES[name]["topk_groups"])


def step(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Step:
    named = [{f"{n}{i}": x for i, x in enumerate(side)} for n, side in (("s", student), ("t", teacher))]
    return Step(Output(None, named[0]), Output(None, named[1]), None, lambda out: out)


def method(example: Step, **settings: Any) -> RTK:
    made = RTK(list(example.student.taps), list(example.teacher.taps), **settings)
    made.setup(example, None)
    return made


def pair(batch: int = 6, sizes: Sequence[int] = (8, 4)) -> Step:
    student = [torch.randn(batch, 3 + i, n, n).relu() for i, n in enumerate(sizes)]
    return step(student, [torch.randn(batch, 5 + i, n, n).relu() for n in sizes for i in range(2)])


@pytest.mark.parametrize("name", CASES)
def test_attention_and_loss_are_the_designs(name: str) -> None:
    found = heard(name)
    assert list(stages_of(maps(name, "t")).values()) == CASES[name]["groups"]
    for i, within in enumerate(found.within):
        expected = tensor("rtk_design", f"{name}_within_group{i}_weights_bsj")
        assert torch.allclose(within, expected, rtol=0, atol=1e-12)
    assert torch.allclose(found.logits, tensor("rtk_design", f"{name}_group_logits_bsg"), rtol=0, atol=1e-12)
    assert torch.allclose(found.attention, tensor("rtk_design", f"{name}_group_attention_bsg"), rtol=0, atol=1e-12)
    loss = rtk_loss(maps(name, "s"), maps(name, "t"), found, "mean")
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
    scores, student, teacher = designed(name), maps(name, "s"), maps(name, "t")
    queries, keys, found = scores.queries(student), scores.keys(teacher), heard(name)
    for g, layers in enumerate(CASES[name]["groups"]):
        key = found.within[g] @ keys[:, layers]
        position = found.within[g] * (scores.p_s @ scores.p_t[layers].T)
        score = ((queries * key).sum(-1) + position.sum(-1)) / queries.shape[-1] ** 0.5
        assert torch.allclose(found.logits[..., g], score, rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", ["mean", "cosine"])
def test_gradients_are_those_of_finite_differences(distance: str) -> None:
    scores = Scores([2, 3], [2, 2, 3], 4).double()
    student = [torch.rand(3, 2, 4, 4, dtype=torch.float64), torch.rand(3, 3, 2, 2, dtype=torch.float64)]
    teacher = [torch.rand(3, 2, 4, 4, dtype=torch.float64) for _ in range(2)]
    teacher += [torch.rand(3, 3, 2, 2, dtype=torch.float64)]

    def loss(one: Tensor, two: Tensor, position: Tensor) -> Tensor:
        values_of = dict(scores.named_parameters()) | {"p_s": position}
        a = torch.func.functional_call(scores, values_of, ([one, two], teacher))
        return rtk_loss([one, two], teacher, stage_attention(a, [[0, 1], [2]], top_k=1), distance)

    inputs = [x.detach().clone().requires_grad_() for x in (*student, scores.p_s)]
    margin = stage_attention(scores(student, teacher), [[0, 1], [2]]).logits.diff(dim=-1).abs().min()
    assert margin > 1e-4  # away from ties
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7)


def test_stages_are_keyed_by_height_and_width_alone() -> None:
    teacher = [torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 4, 4), torch.zeros(2, 9, 8, 8), torch.zeros(2, 4, 8, 4)]
    assert stages_of(teacher) == {(8, 8): [0, 2], (4, 4): [1], (8, 4): [3]}


def test_the_filter_keeps_the_largest_and_the_first_of_equals() -> None:
    scores = torch.tensor([[[1.0, 3.0, 2.0, 3.0]], [[0.0, 0.0, 0.0, 0.0]]])
    stages = [[0], [1], [2], [3]]
    kept = stage_attention(scores, stages, top_k=2).attention
    assert torch.allclose(kept[0, 0], torch.tensor([0.0, 0.5, 0.0, 0.5]))
    assert torch.allclose(kept[1, 0], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert torch.equal(stage_attention(scores, stages, top_k=1).attention[:, 0].argmax(1), torch.tensor([1, 0]))
    many = stage_attention(
        torch.zeros(1, 1, 64), [[i] for i in range(64)], top_k=5
    ).attention  # an unstable sort mixes these
    assert torch.equal(many[0, 0].nonzero().flatten(), torch.arange(5))
    every = stage_attention(scores, stages, None).attention
    assert torch.allclose(every, stage_attention(scores, stages, 4).attention)
    assert torch.allclose(every.sum(-1), torch.ones(2, 1))


def test_one_layer_and_one_stage_are_plain_attention_transfer() -> None:
    student, teacher = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    found = rtk_loss([student], [teacher], stage_attention(torch.randn(4, 1, 1).double(), [[0]], 1), "mean")
    expected = afd_loss([student], [teacher], torch.ones(4, 1, 1, dtype=torch.float64)).sum()
    assert found.item() == pytest.approx(expected.item(), abs=1e-15)


@pytest.mark.parametrize(("distance", "chosen"), [("mean", 32), ("cosine", 8)])
def test_mean_favours_large_maps_whatever_they_show_and_cosine_the_ones_that_match(distance: str, chosen: int) -> None:
    """Why `cosine` is the default: attention is trained on fixed maps of which only the 8×8 one matches."""
    assert RTK().distance == "cosine"
    student = torch.rand(16, 4, 8, 8)
    teacher = [torch.rand(16, 4, 32, 32) ** 2, torch.rand(16, 4, 16, 16) ** 2, student + 0.5 * torch.rand(16, 4, 8, 8)]
    example = step([student], teacher)
    made = method(example, distance=distance, top_k=None, width=8)
    mine = energies([student])
    errors = [
        (values(mine, size) - values(energies([t]))).square().sum(-1).mean()
        for size, t in zip(stages_of(teacher), teacher, strict=True)
    ]
    assert errors[2] < 0.2 * min(errors[:2])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (made(example)["rtk"] * 100).backward()
        optimizer.step()
    _, use = attention_use(made.attend(example).attention)
    assert [32, 16, 8][int(use.argmax())] == chosen


def test_the_distances_differ_by_half_the_positions() -> None:
    student, teacher = [torch.rand(4, 3, 8, 4)], [torch.rand(4, 5, 8, 4), torch.rand(4, 6, 8, 4)]
    attention = stage_attention(torch.randn(4, 1, 2), [[0, 1]])
    mean, cosine = (rtk_loss(student, teacher, attention, d) for d in ("mean", "cosine"))
    assert cosine.item() == pytest.approx(16 * mean.item(), rel=1e-4)


def test_coverage_mixes_the_loss_of_afd_in() -> None:
    example = pair()
    alone = method(example)
    assert set(alone(example)) == {"rtk"}
    assert not any("covering" in name for name, _ in alone.named_parameters())
    half = method(example, coverage=0.25)
    half.scores.load_state_dict(alone.scores.state_dict())
    terms = half.eval()(example)
    assert torch.isclose(terms["rtk"], 0.75 * alone.eval()(example)["rtk"])
    whole = method(example, coverage=1.0, distance="mean", weight=200.0)
    assert set(whole(example)) == {"rtk.coverage"}
    afd = AFD(list(example.student.taps), list(example.teacher.taps))
    afd.setup(example, None)
    afd.attention.load_state_dict(whole.covering.state_dict())
    assert torch.allclose(whole.eval()(example)["rtk.coverage"], afd.eval()(example)["afd"])


def test_a_collapse_shows_in_the_use_of_the_stages() -> None:
    example = pair()
    entropy, use = attention_use(method(example, top_k=1).attend(example).attention)
    assert entropy == 0
    assert use.sum().item() == pytest.approx(1.0)
    entropy, use = attention_use(method(example, top_k=None).attend(example).attention)
    assert 0 < float(entropy) <= 0.6932
    assert not use.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("distance", ["mean", "cosine"])
def test_dead_maps_are_safe_in_half_precision(dtype: torch.dtype, distance: str) -> None:
    student = [torch.zeros(4, 3, 8, 8, dtype=dtype).requires_grad_(), torch.rand(4, 4, 4, 4).to(dtype).requires_grad_()]
    teacher = [
        torch.rand(4, 5, 8, 8).to(dtype),
        torch.zeros(4, 6, 8, 8, dtype=dtype),
        torch.zeros(4, 6, 4, 4, dtype=dtype),
    ]
    made = method(step(student, teacher), distance=distance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(step(student, teacher))["rtk"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in student)


def test_a_batch_of_one_is_refused_by_the_method() -> None:
    example = pair()
    one = step([x[:1] for x in example.student.taps.values()], [x[:1] for x in example.teacher.taps.values()])
    with pytest.raises(UserError, match="the batch has 1 item"):
        method(example, coverage=0.5)(one)


def test_settings_and_layers_that_do_not_fit_are_named() -> None:
    example = pair()
    for top_k in (0, 3):
        with pytest.raises(
            UserError, match=f"top_k is 1 to 2, the number of the teacher's stages, or None; got {top_k}"
        ):
            method(example, top_k=top_k)
    with pytest.raises(UserError, match=r"coverage is a share in \[0, 1\], got 1.5"):
        RTK(coverage=1.5)
    with pytest.raises(UserError, match="distance is one of"):
        RTK(distance="l2")
    with pytest.raises(UserError, match="RTK needs student_taps and teacher_taps"):
        RTK(teacher_taps=())
    with pytest.raises(UserError, match="the teacher's layer 't0' gives a 1×1 map"):
        method(step([torch.rand(4, 3, 8, 8)], [torch.rand(4, 5, 1, 1)]), top_k=1)
    with pytest.raises(UserError, match="the layer 't0' gives 3 items and 's0' 4"):
        method(step([torch.rand(4, 3, 8, 8)], [torch.rand(3, 5, 8, 8)]), top_k=1)
    with pytest.raises(UserError, match="the teacher's tap 't0' holds NaN"):
        method(step([torch.rand(4, 3, 8, 8)], [torch.full((4, 5, 8, 8), torch.nan)]), top_k=1)
    with pytest.raises(UserError, match="not built yet"):
        RTK(["s0"], ["t0"], top_k=1)(step([torch.rand(4, 3, 8, 8)], [torch.rand(4, 5, 8, 8)]))


def test_normalising_the_merged_value_makes_it_a_unit_vector() -> None:
    teacher = [torch.rand(3, 4, 8, 8, dtype=torch.float64) for _ in range(2)]
    within = torch.softmax(torch.randn(3, 1, 2, dtype=torch.float64), -1)
    merged = F.normalize(within @ values(energies(teacher)), dim=2)
    student = [t.clone() for t in teacher[:1]]
    u = values(energies(student))
    expected = (1 - (u * merged).sum(-1)).mean()
    found = rtk_loss(student, teacher, StageAttention([within], torch.zeros(3, 1, 1), torch.ones(3, 1, 1).double()))
    assert found.item() == pytest.approx(expected.item(), abs=1e-14)
