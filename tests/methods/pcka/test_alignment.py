"""Every option of PCKA against the alignment of one matrix after the other, and dead channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.harness import assert_close
from tutelage.methods.pcka import _blocks, pcka_loss
from tutelage.methods.pcka.alignment import patch_alignment
from tutelage.similarity import alignment

OVER = ["channel", "image", "position"]
KERNELS: list[dict[str, Any]] = [
    {},
    {"scale": "rows"},
    {"scale": "cosine"},
    {"center": True},
    {"estimator": "debiased"},
]


@pytest.fixture(params=[2**18, 1], ids=["one block", "a block for each matrix"])
def _blocks_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "CPU_BLOCK", request.param)


def matrices_by_hand(maps: Tensor, over: str) -> list[Tensor]:
    """Return the matrices (p, q) of 4 × 4 patches, from the description of the layout."""
    images, channels, height, width = maps.shape
    six = maps.reshape(images, channels, height // 4, 4, width // 4, 4)
    if over == "channel":
        parts = [six[:, c].permute(1, 3, 0, 2, 4) for c in range(channels)]
    elif over == "image":
        parts = [six[b].permute(1, 3, 0, 2, 4) for b in range(images)]
    else:
        positions = [(i, j) for i in range(4) for j in range(4)]
        parts = [six[:, :, :, i, :, j].permute(2, 3, 0, 1) for i, j in positions]
    return [part.flatten(2).flatten(0, 1) for part in parts]


def by_hand(
    student: Tensor, teacher: Tensor, over: str, kernel: dict[str, Any]
) -> dict[str, Tensor]:
    """Return the mean alignments, matrix by matrix."""
    pairs = zip(matrices_by_hand(teacher, over), matrices_by_hand(student, over), strict=True)
    intra, inter = [], []
    for x, y in pairs:
        intra.append(alignment(x, y, **kernel))
        inter.append(alignment(x.T, y.T, **kernel))
    return {"intra": torch.stack(intra).mean(), "inter": torch.stack(inter).mean()}


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("shape", [(2, 3, 12, 8), (1, 2, 20, 24)], ids=["wide", "tall"])
@pytest.mark.parametrize("kernel", [*KERNELS, {"center": True, "scale": "rows"}], ids=str)
def test_every_option_is_the_alignment_of_every_matrix(
    over: str, shape: tuple[int, ...], kernel: dict[str, Any]
) -> None:
    if over == "position" and kernel.get("estimator") == "debiased":
        shape = (2, 3, *shape[2:])  # the inter term then relates B · C columns, at least 4
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    weights = {"intra": 2.0, "inter": 3.0}
    terms = pcka_loss(
        student, teacher, intra_weight=2.0, inter_weight=3.0, patch_size=4, over=over, **kernel
    )
    for name, mean in by_hand(student, teacher, over, kernel).items():
        assert torch.isclose(terms[name], weights[name] * (1 - mean), rtol=0, atol=1e-10)
    for intra_weight, inter_weight in ((2.0, None), (0.0, 3.0)):
        single = pcka_loss(
            student,
            teacher,
            intra_weight=intra_weight,
            inter_weight=inter_weight,
            patch_size=4,
            over=over,
            **kernel,
        )
        assert len(single) == 1
        for name, term in single.items():
            assert torch.isclose(term, terms[name], rtol=0, atol=1e-10)


@pytest.mark.usefixtures("_blocks_of")
@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_right(over: str, channels_last: bool) -> None:
    student, teacher = torch.randn(2, 2, 3, 6, 7, dtype=torch.float64)
    if channels_last:
        student = student.contiguous(memory_format=torch.channels_last)
    for intra_weight, inter_weight in ((2.0, None), (None, 3.0), (2.0, 3.0)):

        def loss(
            maps: Tensor,
            intra_weight: float | None = intra_weight,
            inter_weight: float | None = inter_weight,
        ) -> Tensor:
            terms = pcka_loss(
                maps,
                teacher,
                intra_weight=intra_weight,
                inter_weight=inter_weight,
                patch_size=4,
                over=over,
            )
            return sum(terms.values())

        assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.usefixtures("_blocks_of")
@pytest.mark.parametrize("over", ["channel", "image"])
def test_blocks_give_what_plain_autograd_gives(over: str) -> None:
    maps, teacher = torch.randn(2, 5, 7, 24, 20, dtype=torch.float64)
    values, gradients = [], []
    for through_autograd in (False, True):  # a teacher with gradient is not cut into blocks
        student = maps.clone().requires_grad_()
        terms = pcka_loss(
            student,
            teacher.clone().requires_grad_(through_autograd),
            inter_weight=3.0,
            patch_size=4,
            over=over,
        )
        loss = sum(terms.values())
        values.append(loss)
        gradients.append(torch.autograd.grad(loss, student)[0])
    assert_close(values[0], values[1], 1e-12)
    assert_close(gradients[0], gradients[1], 1e-12)


# ---- dead channels: the official code gives NaN ----


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("over", ["channel", "image"])
@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_a_matrix_that_is_dead_in_the_teacher_leaves_the_mean(
    kernel: dict[str, Any], over: str, constant: float
) -> None:
    centered = kernel.get("center") or kernel.get("estimator") == "debiased"
    if constant and not centered:
        return  # a constant has uncentered relations
    student, teacher = torch.randn(2, 3, 3, 32, 32)
    everything = slice(None)
    if over == "channel":
        dead, rest = (everything, 1), (everything, [0, 2])
    else:
        dead, rest = (1,), ([0, 2],)
    teacher[dead] = constant
    student.requires_grad_()
    terms = pcka_loss(student, teacher, inter_weight=10.0, over=over, **kernel)
    alone = pcka_loss(student[rest], teacher[rest], inter_weight=10.0, over=over, **kernel)
    aligned = patch_alignment(student, teacher, terms=terms, over=over, **kernel)
    for name, expected in alone.items():
        assert torch.isclose(terms[name], expected, atol=1e-5)
        assert aligned[name].alive.tolist() == [True, False, True]
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()
    assert student.grad[dead].abs().max() == 0
    assert student.grad[rest].abs().max() > 0


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_channel_that_is_dead_in_the_student_costs_its_weight_and_gets_no_gradient(
    kernel: dict[str, Any],
) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    student[:, 1] = 0
    rest = pcka_loss(student[:, ::2], teacher[:, ::2], intra_weight=1.0, inter_weight=1.0, **kernel)
    student.requires_grad_()
    terms = pcka_loss(student, teacher, intra_weight=1.0, inter_weight=1.0, **kernel)
    sum(terms.values()).backward()
    for name, term in terms.items():
        assert torch.isclose(term, (2 * rest[name] + 1) / 3, atol=1e-5)
    assert student.grad[:, 1].abs().max() == 0
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("side", [0, 1])
def test_an_all_zero_patch_of_a_row_scaled_kernel_contributes_nothing(side: int) -> None:
    maps = torch.randn(2, 2, 3, 32, 32)
    maps[side, :, 1, :16, :16] = 0
    student = maps[0].requires_grad_()
    terms = pcka_loss(student, maps[1], inter_weight=10.0, scale="rows")
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.grad.isfinite().all()


# ---- one patch: the official code crashes ----


def test_the_inter_term_of_one_patch_is_the_cosine_of_the_flattened_maps() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16, dtype=torch.float64)
    x = teacher.transpose(0, 1).flatten(1)
    y = student.transpose(0, 1).flatten(1)
    expected = (1 - torch.cosine_similarity(x, y).square()).mean()
    terms = pcka_loss(student, teacher, intra_weight=None, inter_weight=1.0)
    assert torch.isclose(terms["inter"], expected)
