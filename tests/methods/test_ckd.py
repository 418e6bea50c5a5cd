"""CKD against the numbers of the official code, its properties, and where that code must not be followed."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tests.ranks import run_ranks
from tests.vectors import FOLDER, tensor
from tutelage import CKD, Classification, Distiller, Method, Network, Output, Step, UserError
from tutelage.engine.loader import EpochSampler
from tutelage.methods import ckd_agreement, ckd_cosines, ckd_loss

CASES: list[dict[str, Any]] = json.loads((FOLDER / "ckd.json").read_text())["cases"]
EXACT, SINGLE = (torch.float64, 1e-12), (torch.float32, 1e-5)


def vector(case: dict[str, Any], key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("ckd", f"case{case['case']}_{key}", dtype)


def logits(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return vector(case, "student_logits", dtype).requires_grad_(), vector(case, "teacher_logits", dtype)


def loss_of(student: Tensor, teacher: Tensor, temperature: float = 1.0, **options: Any) -> Tensor:
    cosines = {name: options.pop(name) for name in ("eps", "centre") if name in options}
    return ckd_loss(ckd_cosines(student=student, teacher=teacher, **cosines), temperature, **options)


def run(method: CKD, student: Tensor, teacher: Tensor, batch: Any = None) -> Tensor:
    return method(Step(Output(student), Output(teacher), batch, lambda out: out))["ckd"]


def assert_close(found: Tensor, expected: Tensor, error: float) -> None:
    """Compare to a tolerance that is relative to the largest entry."""
    size = float(expected.abs().max()) or 1.0
    assert torch.allclose(found.double(), expected, rtol=0, atol=error * size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
@pytest.mark.parametrize(("dtype", "error"), [EXACT, SINGLE])
def test_values_and_gradients_are_the_official_ones(case: dict[str, Any], dtype: torch.dtype, error: float) -> None:
    student, teacher = logits(case, dtype)
    loss = loss_of(student, teacher, case["temperature"])
    loss.backward()
    assert_close(loss.detach(), vector(case, "loss"), error)
    assert_close(student.grad, vector(case, "grad_student"), error)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
@pytest.mark.parametrize(("dtype", "error"), [EXACT, SINGLE])
@pytest.mark.filterwarnings("ignore:CKD has almost no signal", "ignore:logits shorter")
def test_the_weighted_total_is_the_official_one(case: dict[str, Any], dtype: torch.dtype, error: float) -> None:
    student, teacher = logits(case, dtype)
    ce = case["ce_weight"] * F.cross_entropy(student, vector(case, "targets", torch.int64))
    term = run(CKD(weight=case["cl_weight"], temperature=case["temperature"]), student, teacher)
    (ce + term).backward()
    assert_close(term.detach(), vector(case, "total_kd"), error)
    assert_close((ce + term).detach(), vector(case, "total"), error)
    assert_close(student.grad, vector(case, "grad_total"), error)


def test_the_gradient_is_orthogonal_to_the_row_and_scales_as_one_over_its_length() -> None:
    student, teacher = torch.randn(2, 8, 10, dtype=torch.float64)
    (one,) = torch.autograd.grad(loss_of(student.requires_grad_(), teacher), student)
    assert ((student * one).sum(1).abs() < 1e-16).all()
    scale = torch.rand(8, 1, dtype=torch.float64) + 0.5
    assert torch.isclose(loss_of(student * scale, 3 * teacher), loss_of(student, teacher), rtol=1e-14)
    scaled = (student.detach() * scale).requires_grad_()
    (two,) = torch.autograd.grad(loss_of(scaled, teacher), scaled)
    assert torch.allclose(two * scale, one, rtol=1e-12)


def test_a_constant_added_to_a_row_changes_the_loss_unless_rows_are_centred() -> None:
    student, teacher = torch.randn(2, 8, 10, dtype=torch.float64)
    assert abs(loss_of(student + 3, teacher) - loss_of(student, teacher)) > 1e-2
    pairs = ((student + 3, teacher), (student, teacher - 5))
    centred = loss_of(student, teacher, centre=True)
    assert all(torch.isclose(loss_of(*pair, centre=True), centred, rtol=1e-12) for pair in pairs)


def test_roles_cannot_be_swapped_by_position() -> None:
    """The official repository has the function twice, with both orders."""
    student, teacher = logits(CASES[0])
    assert round(loss_of(student, teacher).item(), 4) == 1.3552
    assert round(loss_of(teacher, student).item(), 4) == 1.3424
    with pytest.raises(TypeError, match="positional"):
        ckd_cosines(student, teacher)  # type: ignore[misc]


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 8, 10).unbind()
    loss_of(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None


def test_unrelated_networks_give_log_b_and_the_floor_is_a_regular_simplex() -> None:
    student, teacher = torch.randn(2, 64, 2000, dtype=torch.float64)
    assert loss_of(student, teacher).item() == pytest.approx(math.log(64), abs=0.01)
    for items, temperature, floor in ((64, 1.0, 3.170), (32, 2.0, 2.970)):
        simplex = torch.eye(items, dtype=torch.float64) - 1 / items
        found = loss_of(simplex, simplex, temperature).item()
        bound = math.log(1 + (items - 1) * math.exp(-items / ((items - 1) * temperature)))
        assert found == pytest.approx(bound, rel=1e-12)
        assert found == pytest.approx(floor, abs=1e-3)
        assert loss_of(*torch.randn(2, items, 100, dtype=torch.float64), temperature) > bound


def test_agreement_is_the_progress_that_the_value_hides() -> None:
    teacher = torch.eye(16)
    far = ckd_agreement(ckd_cosines(student=teacher.roll(1, 0), teacher=teacher))
    near = ckd_agreement(ckd_cosines(student=5 * teacher + 0.1, teacher=teacher))
    assert {name: value.item() for name, value in far.items()} == {"cosine": 0.0, "found": 0.0}
    assert near["found"] == 1.0
    assert near["cosine"] > 0.99
    collapsed = ckd_agreement(ckd_cosines(student=torch.ones(16, 16), teacher=teacher))
    assert collapsed["found"] == 1 / 16


def test_cosines_masks_and_labels_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"cosines \(B, B\) of the same items, got \(4, 6\)"):
        ckd_loss(torch.zeros(4, 6))
    for blocked in (torch.zeros(4, dtype=torch.bool), torch.zeros(4, 4)):
        with pytest.raises(UserError, match=r"blocked is \(4, 4\) of torch.bool, got"):
            ckd_loss(torch.eye(4), blocked=blocked)
    for temperature in (0.0, torch.tensor(-1.0)):
        with pytest.raises(UserError, match="the temperature of CKD must be positive"):
            ckd_loss(torch.eye(4), temperature)
    for labels in (torch.zeros(9, 1).long(), torch.zeros(1).long(), torch.zeros(9, 5), torch.zeros(8).long()):
        step = Step(Output(torch.randn(9, 5)), Output(torch.randn(9, 5)), (None, labels), torch.sum)
        with pytest.raises(UserError, match=r"CKD needs labels \(9,\) of int64, one class an item"):
            CKD(mask_same_class=True)(step)


# Where the official code must not be followed (section 7 of the specification), row by row.

SCRIPT = """
import os, sys
import torch
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel
from tests.methods.test_ckd import batch_of, distiller_of
import {module} as variants
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank, found = torch.distributed.get_rank(), {{}}
for name, make in variants.VARIANTS.items():
    distiller = distiller_of(make())
    images, labels = batch_of()
    parallel = DistributedDataParallel(distiller)
    sum(parallel((images[rank::2], labels[rank::2])).values()).backward()
    found[name] = distiller.student.weight.grad.clone()
    if distiller.method.state_dict():
        found[name + ".temperature"] = distiller.method.log_temperature.grad.clone()
save_file(found, f"{{sys.argv[1]}}/rank{{rank}}.safetensors")
torch.distributed.destroy_process_group()
"""
VARIANTS = {
    "plain": lambda: CKD(task_weight=0.0),
    "sharp, symmetric": lambda: CKD(task_weight=0.0, temperature=0.1, symmetric=True, centre=True),
    "same class": lambda: CKD(task_weight=0.0, mask_same_class=True),
    "learnt": lambda: CKD(task_weight=0.0, learn_temperature=True),
    "own share": lambda: CKD(task_weight=0.0, gather=False),
}


def batch_of() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(24, 6, generator=generator).double(), torch.arange(24) % 5


def distiller_of(method: Method) -> Distiller:
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 5, bias=False).double(), nn.Linear(6, 5).double()
    distiller = Distiller(student, Network(teacher), method, Classification(num_classes=5))
    distiller.setup(batch_of())
    return distiller


def gradient_of(method: Method, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return the student's gradient, and the learnt temperature's."""
    distiller = distiller_of(method)
    sum(distiller(batch).values()).backward()
    extra = next(iter(distiller.method.parameters()), None)
    return distiller.student.weight.grad, None if extra is None else extra.grad


def on_two_ranks(module: str, folder: Path) -> list[dict[str, Tensor]]:
    """Return what each of two real processes has as the gradient of its half of the batch, for all VARIANTS."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(module=module))
    run_ranks(script, folder)
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(2)]


def test_two_ranks_give_the_gradient_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    """Under DataParallel the official negatives shrink with the number of devices."""
    ranks = on_two_ranks("tests.methods.test_ckd", tmp_path)
    for name, make in VARIANTS.items():
        whole, temperature = gradient_of(make(), batch_of())
        for rank in ranks:
            if name == "own share":
                images, labels = batch_of()
                shares = [gradient_of(make(), (images[r::2], labels[r::2]))[0] for r in range(2)]
                assert_close(rank[name], sum(shares) / 2, 1e-12)
                assert not torch.allclose(rank[name], whole, rtol=1e-2)
            else:
                assert_close(rank[name], whole, 1e-12)
            if temperature is not None:
                assert torch.allclose(rank[f"{name}.temperature"], temperature, rtol=1e-6)


def plain_form(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the loss as one writes it down, with nothing done about precision or length."""
    similarity = F.normalize(teacher) @ F.normalize(student).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(student)).to(student.device))


def test_autocast_leaves_the_similarity_in_full_precision() -> None:
    student, teacher = torch.randn(2, 32, 100)
    exact = loss_of(student, teacher, 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, plain = loss_of(student, teacher, 0.07), plain_form(student, teacher, 0.07)
    assert torch.equal(inside, exact)
    assert abs(plain - exact) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 32, 100).to(dtype)
    loss = loss_of(student, teacher, 0.07)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(student.float(), teacher.float(), 0.07))
    assert torch.isclose(loss_of(student.float(), teacher, 0.07), loss)


@pytest.mark.parametrize("length", [0.0, 2e-6])
def test_a_row_of_almost_no_length_warns_once_and_a_larger_eps_tames_it(length: float) -> None:
    student, teacher = torch.randn(2, 10, 6)
    student[0] *= length / student[0].norm()

    def steepest(method: CKD) -> float:
        leaf = student.clone().requires_grad_()
        return float(torch.autograd.grad(run(method, leaf, teacher), leaf)[0].norm(dim=1).max())

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        official = min(steepest(CKD(weight=1.0)) for _ in range(3))
        tamed = steepest(CKD(weight=1.0, eps=1e-2))
    assert official > 1e4
    assert tamed <= 1 / 1e-2
    assert [str(each.message) for each in said] == [
        "logits shorter than 1e-4 make CKD's gradient huge; set its eps to 1e-2, or clip"
    ]
    ordinary = torch.randn(10, 6)
    assert torch.equal(loss_of(ordinary, teacher), loss_of(ordinary, teacher, eps=1e-2))


def test_setup_warns_of_a_classifier_that_starts_at_zero() -> None:
    student = nn.Linear(8, 3)
    nn.init.zeros_(student.weight)
    nn.init.zeros_(student.bias)
    distiller = Distiller(student, Network(nn.Linear(8, 3)), CKD(), Classification(num_classes=3))
    with pytest.warns(UserWarning, match="logits shorter than 1e-4"):
        distiller.setup((torch.randn(16, 8), torch.zeros(16, dtype=torch.int64)))


def test_items_of_the_anchors_class_need_not_be_negatives() -> None:
    """Duplicates are pushed apart although the teacher sees them as alike (case 6)."""
    case = next(case for case in CASES if case["case"] == 6)
    student, teacher = logits(case)
    labels = vector(case, "targets", torch.int64)
    with pytest.warns(UserWarning, match="fewer than 8 items"):
        apart = run(CKD(), student, teacher, (None, labels))
    with pytest.warns(UserWarning, match="fewer than 8 items"):
        masked = run(CKD(mask_same_class=True), student, teacher, (None, labels))
    assert apart > 1.0
    assert masked == 0.0  # one class: no negative is left
    (gradient,) = torch.autograd.grad(masked, student)
    assert (gradient == 0).all()


def test_masked_pairs_leave_the_sum_and_unlabelled_items_are_no_class() -> None:
    student, teacher = torch.randn(2, 9, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, -100, -100, -100])
    z, total = ckd_cosines(student=student, teacher=teacher), 0.0
    for i, mine in enumerate(labels.tolist()):
        others = [j for j, y in enumerate(labels.tolist()) if j == i or mine == -100 or y != mine]
        total += float(z[i, others].logsumexp(0) - z[i, i])
    found = run(CKD(weight=1.0, mask_same_class=True), student, teacher, {"labels": labels})
    assert found.item() == pytest.approx(total / 9, rel=1e-12)
    with pytest.raises(UserError, match="the method needs labels"):
        run(CKD(mask_same_class=True), student, teacher, {"pixels": student})


def test_proposals_of_each_image_alone_are_the_mean_over_images() -> None:
    student, teacher = torch.randn(2, 12, 4, dtype=torch.float64)
    image = torch.arange(12) // 4
    found = loss_of(student, teacher, blocked=image != image[:, None])
    each = [loss_of(student[image == i], teacher[image == i]) for i in range(3)]
    assert torch.isclose(found, sum(each) / 3, rtol=1e-12)


def test_few_rows_warn_once_and_one_or_none_give_zero_that_is_connected() -> None:
    student, teacher = torch.randn(2, 7, 5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            run(CKD(), student, teacher)
    assert len(said) == 1
    assert "fewer than 8 items" in str(said[0].message)
    for items in (0, 1):
        leaf = student[:items].clone().requires_grad_()
        loss = loss_of(leaf, teacher[:items], symmetric=True)
        loss.backward()
        assert loss == 0
        assert (leaf.grad == 0).all()


def test_our_training_batches_are_all_of_one_size() -> None:
    """A last batch of a few items would have hardly any negatives; the official loader keeps it."""
    assert {len(items) for items in EpochSampler(100, 32, seed=0)} == {32}


def test_nothing_is_made_elsewhere_and_moved() -> None:
    student, teacher = torch.randn(2, 8, 5)
    with torch.device("meta"):  # where an index lands that does not say its device
        assert loss_of(student, teacher, blocked=torch.zeros(8, 8, dtype=torch.bool, device="cpu")).isfinite()
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            plain_form(student, teacher, 1.0)


# Our own options.


def test_symmetric_is_the_mean_of_both_directions() -> None:
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64)
    both = (loss_of(student, teacher) + loss_of(teacher, student)) / 2
    assert torch.isclose(run(CKD(weight=1.0, symmetric=True), student, teacher), both, rtol=1e-12)


def test_a_learnt_temperature_starts_where_it_is_told_and_has_a_gradient() -> None:
    student, teacher = torch.randn(2, 16, 5)
    method = CKD(temperature=0.5, learn_temperature=True)
    assert not list(method.parameters())
    step = Step(Output(student.requires_grad_()), Output(teacher), None, lambda out: out)
    method.setup(step, None)
    term = method(step)["ckd"]
    term.backward()
    assert torch.isclose(term, run(CKD(temperature=0.5), student, teacher))
    assert method.log_temperature.grad.abs() > 0


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            torch.zeros(4, 3, 2, 2),
            torch.zeros(4, 3, 2, 2),
            r"got \(4, 3, 2, 2\) of torch.float32.*flatten maps to rows",
        ),
        (torch.zeros(4, 3), torch.zeros(5, 3), r"of the same items, got \(4, 3\) of .* and \(5, 3\)"),
        (torch.zeros(4, 10), torch.zeros(4, 100), "CKD compares logits: student 10 classes, teacher 100"),
        (torch.zeros(4, 1), torch.zeros(4, 1), "student 1 classes, teacher 1; give both as many, 2 or more"),
        (torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3), r"floating-point .* \(4, 3\) of torch.int64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loss_of(student, teacher)


def test_settings_that_do_not_fit_are_named() -> None:
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=f"the temperature of CKD must be positive, got {bad}"):
            CKD(temperature=bad)
        with pytest.raises(UserError, match=f"the eps of CKD must be positive, got {bad}"):
            CKD(eps=bad)
        with pytest.raises(UserError, match="the temperature of CKD must be positive"):
            ckd_loss(torch.eye(3), bad)
        with pytest.raises(UserError, match="the eps of CKD must be positive"):
            ckd_cosines(student=torch.eye(3), teacher=torch.eye(3), eps=bad)


def test_nan_is_refused_before_training_and_never_hidden() -> None:
    student, teacher = torch.randn(2, 8, 5)
    student[0, 0] = float("nan")
    assert loss_of(student, teacher).isnan()
    with pytest.raises(UserError, match="the student's output holds NaN or infinity"):
        CKD().setup(Step(Output(student), Output(teacher), None, lambda out: out), None)
