"""PCKA against the numbers of the official code, and where that code must not be followed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.vectors import cases, tensor
from tutelage import PCKA, Mimic, Output, Step, Together, UserError
from tutelage.methods import Patches, patch_blocks, pcka_loss
from tutelage.similarity import Kernel, alignment

CASES = cases("pcka")
OVER = {"": "channel", "_batch": "image", "_hw": "position"}
BILINEAR = {"mode": "bilinear", "align_corners": False}


def official(case: dict[str, Any]) -> tuple[PCKA, float]:
    """Return our method with a case's settings, and what our value exceeds the official one by (w for each term)."""
    given = case["hyperparameters"]
    weight = given["intra_weight"]
    inter = weight if given["inter_weight"] else None  # official: a switch, the weight is that of the intra term
    scale = "rows" if given["with_l2_norm"] else None
    over = OVER[case["cls"].removeprefix("CenterKernelAlignmentRKD")]
    method = PCKA({"a": "b"}, intra=weight, inter=inter, scale=scale, over=over)
    return method, weight * (2 if inter else 1)


def step(student: Tensor, teacher: Tensor) -> Step:
    return Step(Output(None, {"a": student}), Output(None, {"b": teacher}), None, lambda out: out)


def set_up(student: Tensor, teacher: Tensor, **settings: Any) -> tuple[PCKA, Step]:
    method, example = PCKA({"a": "b"}, **settings), step(student, teacher)
    method.setup(example, None)
    return method, example


@pytest.fixture(params=[2**18, 1], ids=["one block", "a block for each matrix"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_blocks, "ON_CPU", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("through", ["blocks", "autograd"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "value_error", "gradient_error"), [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-4, 1e-5)]
)
def test_values_and_gradients_are_the_official_ones(
    name: str, through: str, dtype: torch.dtype, value_error: float, gradient_error: float
) -> None:
    student = tensor("pcka", f"{name}_student", dtype).requires_grad_()
    teacher = tensor("pcka", f"{name}_teacher", dtype).requires_grad_(through == "autograd")
    method, shift = official(CASES[name])
    method.setup(step(student.detach(), teacher.detach()), None)
    loss = sum(method(step(student, teacher)).values())
    loss.backward()
    assert loss.item() == pytest.approx(tensor("pcka", f"{name}_loss").item() + shift, abs=value_error)
    assert torch.allclose(student.grad.double(), tensor("pcka", f"{name}_grad_student"), rtol=0, atol=gradient_error)


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_patches_are_the_official_ones(whose: str) -> None:
    maps = tensor("pcka", f"c04_{whose}")
    grid = Patches().grid(maps, maps)
    assert torch.allclose(grid.cut(grid.resized(maps)), tensor("pcka", f"c04_{whose}_patches"), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_bf16_autocast_changes_nothing_for_float32_maps(name: str) -> None:
    student, teacher = (tensor("pcka", f"{name}_{whose}", torch.float32) for whose in ("student", "teacher"))
    method, _ = official(CASES[name])
    method.setup(step(student, teacher), None)
    student.requires_grad_()
    exact = sum(method(step(student, teacher)).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(method(step(student, teacher)).values())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, exact)
    gradients = [torch.autograd.grad(value, student)[0] for value in (loss, exact)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [32, 33])
def test_half_precision_maps_are_related_in_float32(dtype: torch.dtype, size: int) -> None:
    student, teacher = (300 * torch.randn(2, 2, 4, size, size)).to(dtype)  # fp16 squares of these overflow
    exact = pcka_loss(student.double().requires_grad_(), teacher.double(), inter=10.0)
    student.requires_grad_()
    found = pcka_loss(student, teacher, inter=10.0)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), abs=1e-4)
    sum(found.values()).backward()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_scale_does_not_matter(factor: float) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    one = pcka_loss(student, teacher, inter=10.0)
    scaled = (factor * student).requires_grad_()
    for name, value in pcka_loss(scaled, teacher / factor, inter=10.0).items():
        assert value.item() == pytest.approx(one[name].item(), abs=1e-5)
    gradient = torch.autograd.grad(sum(pcka_loss(scaled, teacher, inter=10.0).values()), scaled)[0]
    student.requires_grad_()
    expected = torch.autograd.grad(sum(pcka_loss(student, teacher, inter=10.0).values()), student)[0]
    assert torch.allclose(gradient * factor, expected, rtol=1e-3, atol=1e-7)


def by_hand(student: Tensor, teacher: Tensor, over: str, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Return the mean intra and inter alignments of 4 × 4 patches, matrix by matrix, from the layout's description."""
    b, c, h, w = student.shape
    six = [x.reshape(b, c, h // 4, 4, w // 4, 4) for x in (teacher, student)]
    if over == "channel":
        matrices = [[x[:, k].permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1) for x in six] for k in range(c)]
    elif over == "image":
        matrices = [[x[k].permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1) for x in six] for k in range(b)]
    else:
        pixels = [(i, j) for i in range(4) for j in range(4)]
        matrices = [[x[:, :, :, i, :, j].permute(2, 3, 0, 1).flatten(2).flatten(0, 1) for x in six] for i, j in pixels]
    options = {"center": kernel.center, "scale": kernel.scale, "estimator": kernel.estimator}
    intra = torch.stack([alignment(x, y, **options) for x, y in matrices]).mean()
    return intra, torch.stack([alignment(x.T, y.T, **options) for x, y in matrices]).mean()


@pytest.mark.parametrize("over", OVER.values())
@pytest.mark.parametrize("shape", [(2, 3, 12, 8), (1, 2, 20, 24)], ids=["wide", "tall"])
@pytest.mark.parametrize(
    "kernel",
    [
        Kernel(),
        Kernel(scale="rows"),
        Kernel(scale="cosine"),
        Kernel(center=True),
        Kernel(True, "rows"),
        Kernel(estimator="debiased"),
    ],
    ids=repr,
)
def test_every_option_is_the_alignment_of_every_matrix(over: str, shape: tuple[int, ...], kernel: Kernel) -> None:
    if over == "position" and kernel.estimator == "debiased":
        shape = (2, 3, *shape[2:])  # the inter term then relates B · C columns, at least 4
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    terms = pcka_loss(student, teacher, 2.0, 3.0, Patches(4, over), kernel)
    intra, inter = by_hand(student, teacher, over, kernel)
    assert torch.isclose(terms["intra"], 2.0 * (1 - intra), rtol=0, atol=1e-10)
    assert torch.isclose(terms["inter"], 3.0 * (1 - inter), rtol=0, atol=1e-10)
    for settings in ((2.0, None), (0.0, 3.0)):
        for name, alone in pcka_loss(student, teacher, *settings, Patches(4, over), kernel).items():
            assert torch.isclose(alone, terms[name], rtol=0, atol=1e-10)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("over", OVER.values())
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_right(over: str, channels_last: bool) -> None:
    student, teacher = torch.randn(2, 2, 3, 6, 7, dtype=torch.float64)
    if channels_last:
        student = student.contiguous(memory_format=torch.channels_last)
    for weights in ((2.0, None), (None, 3.0), (2.0, 3.0)):

        def loss(maps: Tensor, weights: tuple[float | None, float | None] = weights) -> Tensor:
            return sum(pcka_loss(maps, teacher, *weights, Patches(4, over)).values())

        assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_inter_has_a_weight_of_its_own_and_each_term_its_own_name() -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    one, other = (set_up(student, teacher, intra=10.0, inter=inter) for inter in (10.0, 3.0))
    first, second = (method(example) for method, example in (one, other))
    assert list(first) == ["pcka.intra.a", "pcka.inter.a"]
    assert torch.equal(first["pcka.intra.a"], second["pcka.intra.a"])
    assert torch.isclose(0.3 * first["pcka.inter.a"], second["pcka.inter.a"])
    assert list(set_up(student, teacher)[0](one[1])) == ["pcka.intra.a"]  # None, and 0, are off
    assert list(set_up(student, teacher, intra=0.0, inter=1.0)[0](one[1])) == ["pcka.inter.a"]


# ---- one patch: the official code crashes ----


@pytest.mark.parametrize("scale", [None, "rows"])
@pytest.mark.parametrize("size", [(16, 16), (8, 8), (10, 10), (1, 1)])
def test_one_patch_is_named_before_training(size: tuple[int, int], scale: str | None) -> None:
    maps = torch.randn(2, 3, *size)
    message = rf"PCKA of a → b: a map of {size[0]}×{size[1]} gives 1 patches of 16×16.*set patch='auto'"
    with pytest.raises(UserError, match=message):
        set_up(maps, maps, scale=scale)
    with pytest.raises(UserError, match="gives 1 patches of 16×16"):
        pcka_loss(maps, maps)


def test_the_inter_term_of_one_patch_is_the_cosine_of_the_flattened_maps() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16, dtype=torch.float64)
    x, y = (maps.transpose(0, 1).flatten(1) for maps in (teacher, student))
    expected = (1 - torch.cosine_similarity(x, y).square()).mean()
    assert torch.isclose(pcka_loss(student, teacher, None, 1.0)["inter"], expected)


@pytest.mark.parametrize("inter", [None, 10.0])
def test_a_later_batch_of_one_patch_adds_nothing_under_the_same_names(inter: float | None) -> None:
    method, example = set_up(torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32), inter=inter)
    small = torch.randn(2, 3, 16, 16, requires_grad=True)
    terms = method(step(small, torch.randn(2, 5, 16, 16)))
    assert list(terms) == list(method(example))
    method(step(small, torch.randn(2, 5, 16, 16)))
    terms["pcka.intra.a"].backward(retain_graph=True)
    assert terms["pcka.intra.a"] == 0
    assert method.left_out["pcka.intra.a"] == 5
    assert small.grad.abs().max() == 0
    assert method.projections[0].weight.grad.abs().max() == 0  # reached, as data-parallel training wants
    assert inter is None or terms["pcka.inter.a"] > 0


def test_auto_halves_the_patch_of_small_maps_until_there_are_four() -> None:
    levels = [maps_of(size) for size in ((40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (100, 167), (7, 11))]
    grids = [Patches("auto").grid(maps, maps) for maps in levels]
    assert [grid.patch for grid in grids] == [16, 16, 8, 4, 2, 1, 16, 4]
    assert all(grid.patches >= 4 for grid in grids)
    for maps in levels:
        terms = pcka_loss(maps, torch.randn_like(maps), 1.0, 1.0, Patches("auto"))
        assert all(0 < term < 1 for term in terms.values())
    with pytest.raises(UserError, match="a map of 1×1 gives 1 patches of 1×1"):
        pcka_loss(maps_of((1, 1)), maps_of((1, 1)), patches=Patches("auto"))


@pytest.mark.parametrize(
    ("image", "counts"),
    [
        ((800, 1333), [273, 77, 24, 6, 2, 1]),
        ((640, 640), [100, 25, 9, 4, 1, 1]),
        ((512, 512), [64, 16, 4, 1, 1, 1]),
        ((320, 320), [25, 9, 4, 1, 1, 1]),
    ],
)
def test_pyramid_levels_have_as_many_patches_as_the_official_cut(image: tuple[int, int], counts: list[int]) -> None:
    maps = [maps_of((-(-image[0] // stride), -(-image[1] // stride)), 1) for stride in (4, 8, 16, 32, 64, 128)]
    assert [Patches().grid(level, level).patches for level in maps] == counts


def maps_of(size: tuple[int, int], channels: int = 3) -> Tensor:
    return torch.randn(2, channels, *size)


# ---- dead channels: the official code gives NaN ----

KERNELS = [Kernel(), Kernel(scale="rows"), Kernel(scale="cosine"), Kernel(center=True), Kernel(estimator="debiased")]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("over", ["channel", "image"])
@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_a_matrix_that_is_dead_in_the_teacher_leaves_the_mean(kernel: Kernel, over: str, constant: float) -> None:
    centred = kernel.center or kernel.estimator == "debiased"
    if constant and not centred:
        return  # a constant has uncentred relations
    student, teacher = torch.randn(2, 3, 3, 32, 32)
    dead = (slice(None), 1) if over == "channel" else (1,)
    rest = [[0, 2], slice(None)][::-1] if over == "channel" else [[0, 2]]
    teacher[dead] = constant
    options = {"scale": kernel.scale, "center": kernel.center, "estimator": kernel.estimator}
    method, example = set_up(student.requires_grad_(), teacher, inter=10.0, over=over, **options)
    terms = method(example)
    alone = pcka_loss(student[tuple(rest)], teacher[tuple(rest)], 10.0, 10.0, Patches(16, over), kernel)
    for name, expected in alone.items():
        assert torch.isclose(terms[f"pcka.{name}.a"], expected, atol=1e-5)
        assert method.left_out[f"pcka.{name}.a"] == 1
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()
    assert student.grad[dead].abs().max() == 0
    assert student.grad[tuple(rest)].abs().max() > 0


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_channel_that_is_dead_in_the_student_costs_its_weight_and_gets_no_gradient(kernel: Kernel) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    student[:, 1] = 0
    rest = pcka_loss(student[:, ::2], teacher[:, ::2], 1.0, 1.0, kernel=kernel)
    student.requires_grad_()
    terms = pcka_loss(student, teacher, 1.0, 1.0, kernel=kernel)
    sum(terms.values()).backward()
    for name, term in terms.items():
        assert torch.isclose(term, (2 * rest[name] + 1) / 3, atol=1e-5)
    assert student.grad[:, 1].abs().max() == 0
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"scale": "rows"}, {"inter": 10.0}, {"center": True}, {"over": "image"}])
def test_a_teacher_that_is_dead_everywhere_is_named_before_training_and_harmless_later(settings: Any) -> None:
    student, teacher = torch.randn(2, 2, 3, 32, 32)
    with pytest.raises(UserError, match=r"PCKA of a → b: the teacher's map is dead in every (channel|image)"):
        set_up(student, torch.zeros_like(teacher), **settings)
    method, _ = set_up(student, teacher, **settings)
    terms = method(step(student.requires_grad_(), torch.zeros_like(teacher)))
    sum(terms.values()).backward()
    assert all(term == 0 for term in terms.values())
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("whose", [0, 1])
def test_an_all_zero_patch_of_a_row_scaled_kernel_contributes_nothing(whose: int) -> None:
    maps = torch.randn(2, 2, 3, 32, 32)
    maps[whose, :, 1, :16, :16] = 0
    student = maps[0].requires_grad_()
    terms = pcka_loss(student, maps[1], inter=10.0, kernel=Kernel(scale="rows"))
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.grad.isfinite().all()


# ---- adapters, sizes, inputs that do not fit ----


def test_an_adapter_is_built_once_and_trained() -> None:
    method, example = set_up(torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32), inter=10.0)
    assert isinstance(method.projections[0], nn.Conv2d)
    first, second = (torch.stack(list(method(example).values())) for _ in range(2))
    assert torch.equal(first, second)  # the official one is made anew in every step
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    first.sum().backward()
    optimizer.step()
    assert sum(method(example).values()) < first.sum()
    assert not list(set_up(*torch.randn(2, 2, 3, 32, 32))[0].parameters())


def test_maps_of_other_sizes_are_related_if_they_round_up_to_one_grid() -> None:
    student, teacher = torch.randn(2, 3, 29, 40), torch.randn(2, 3, 25, 42)
    found = pcka_loss(student, teacher)["intra"]
    sides = [nn.functional.interpolate(maps, (32, 48), **BILINEAR) for maps in (student, teacher)]
    assert torch.isclose(found, pcka_loss(*sides)["intra"], atol=1e-6)
    with pytest.raises(UserError, match=r"29×40 and the teacher's 25×50: 2×3 and 2×4 patches.*transformed batch"):
        pcka_loss(student, torch.randn(2, 3, 25, 50))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 4, 32, 32), "use an adapter"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32), "the same images on both sides"),
        (torch.zeros(2, 3, 32), torch.zeros(2, 3, 32), "tap convolutional maps"),
        (torch.zeros(0, 3, 32, 32), torch.zeros(0, 3, 32, 32), "tap convolutional maps"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int32), torch.zeros(2, 3, 32, 32), "floating-point"),
    ],
)
def test_maps_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pcka_loss(student, teacher)


def test_settings_that_do_not_fit_are_named() -> None:
    for settings in ({"patch": 0}, {"patch": "big"}, {"patch": 2.5}):
        with pytest.raises(UserError, match="a patch is a whole number of positions or 'auto', got"):
            PCKA({"a": "b"}, **settings)
    with pytest.raises(UserError, match="PCKA averages over one of"):
        PCKA({"a": "b"}, over="batch")
    for settings in ({"pairs": {}}, {"pairs": {"a": "b"}, "intra": None}):
        with pytest.raises(UserError, match=r"PCKA needs pairs of taps, such as .* and a weight"):
            PCKA(**settings)
    with pytest.raises(UserError, match="PCKA of a → b: alignment knows scale in"):
        set_up(*torch.randn(2, 2, 3, 32, 32), scale="columns")
    maps = torch.randn(2, 3, 16, 48)
    with pytest.raises(UserError, match="fewer than the 4 that are needed"):
        set_up(maps, maps, estimator="debiased")


@pytest.mark.parametrize("whose", [0, 1])
def test_nan_is_refused_before_training_and_never_hidden(whose: int) -> None:
    maps = torch.randn(2, 2, 3, 32, 32)
    maps[whose, 0, 0, 0, 0] = float("nan")
    assert pcka_loss(*maps)["intra"].isnan()
    with pytest.raises(UserError, match=r"tap '[ab]' holds NaN or infinity"):
        set_up(*maps)


def test_it_composes_with_mimic() -> None:
    student, teacher = torch.randn(2, 3, 32, 32), torch.randn(2, 5, 32, 32)
    both = Together([PCKA({"a": "b"}, inter=10.0), Mimic({"a": "b"})])
    example = step(student, teacher)
    both.setup(example, None)
    terms = both(example)
    assert list(terms) == ["pcka.intra.a", "pcka.inter.a", "mimic.a"]
    sum(terms.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in both.parameters())


def test_what_several_processes_compute() -> None:
    """Each relates its own images: over images that is the joined batch's loss, over channels it is another one."""
    student, teacher = torch.randn(2, 4, 3, 32, 32)
    parts = student.split(2), teacher.split(2)
    for over, same in (("image", True), ("channel", False)):
        joined = pcka_loss(student, teacher, patches=Patches(16, over))["intra"]
        halves = [pcka_loss(*maps, patches=Patches(16, over))["intra"] for maps in zip(*parts, strict=True)]
        assert torch.isclose(joined, sum(halves) / 2, rtol=1e-4) == same
