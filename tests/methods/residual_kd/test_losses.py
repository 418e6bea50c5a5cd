"""The losses of residual distillation against the numbers of our formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import cases, image_batch, tensor
from tests.methods.residual_kd.support import LAST, distill_normalized
from tutelage import ResidualKD, UserError
from tutelage.methods import residual_kd_loss
from tutelage.methods.residual_kd import error_removed, feature_distance, residuals
from tutelage.methods.residual_kd.joint_head import JointHead

CASES = cases("residual_kd")
FULL = [name for name in CASES if "adapter" in CASES[name]]
ADAPTED = [name for name in FULL if CASES[name]["adapter"] != "identity"]


def vector(name: str, key: str) -> Tensor:
    return tensor("residual_kd", f"{name}_{key}")


def features(name: str) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return f_S and f_A as leaves, and f_T."""
    count = CASES[name].get("n_assistants", 1)
    assistants = [vector(name, f"a{k}").requires_grad_() for k in range(count)]
    return vector(name, "s").requires_grad_(), assistants, vector(name, "t")


def gradient_or_none(loss: Tensor, leaf: Tensor) -> Tensor | None:
    return torch.autograd.grad(loss, leaf, allow_unused=True, retain_graph=True)[0]


def assert_same(actual: Tensor, expected: Tensor, error: float = 1e-12) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=0, atol=error)


@pytest.mark.parametrize("name", FULL)
def test_losses_and_gradients_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    losses = residual_kd_loss(student, assistants, teacher)
    single_losses = vector(name, "loss_A_mse_list")
    assert losses["student"].item() == pytest.approx(vector(name, "loss_S_mse").item(), abs=1e-12)
    assert losses["assistant"].item() == pytest.approx(single_losses.sum().item(), abs=1e-12)
    assert_same(
        torch.autograd.grad(losses["student"], student)[0], vector(name, "grad_S_of_loss_S")
    )
    assert_same(
        torch.autograd.grad(losses["assistant"], assistants[0])[0],
        vector(name, "grad_A0_of_loss_A"),
    )
    targets = residuals(student, assistants, teacher)
    assert len(targets) == len(single_losses)
    for k, (target, single) in enumerate(zip(targets, single_losses, strict=True)):
        assert_same(target, vector(name, f"residual_target{k}"))
        distance = feature_distance(assistants[k], target)
        assert distance.item() == pytest.approx(single.item(), abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_joined_feature_and_its_loss_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    losses = residual_kd_loss(student, assistants, teacher, schedule="end_to_end")
    assert losses["combined"].item() == pytest.approx(CASES[name]["loss_combined_mse"], abs=1e-12)
    assert_same(student + sum(assistants), vector(name, "combined"))


@pytest.mark.parametrize("name", FULL)
def test_attention_distances_are_those_of_the_vectors(name: str) -> None:
    student, assistants, teacher = features(name)
    if teacher.ndim == 2 or teacher.shape[2] * teacher.shape[3] == 1:
        with pytest.raises(UserError, match="is always 0"):
            feature_distance(student, teacher, distance="attention")
        return
    losses = residual_kd_loss(
        student, assistants, teacher, distance="attention", schedule="end_to_end"
    )
    combined = losses["combined"]
    assert losses["student"].item() == pytest.approx(vector(name, "loss_S_at").item(), abs=1e-12)
    assert combined.item() == pytest.approx(vector(name, "loss_combined_at").item(), abs=1e-12)
    if len(assistants) == 1:
        detached = residual_kd_loss(student, assistants, teacher, distance="attention")["assistant"]
        assert detached.item() == pytest.approx(combined.item(), abs=1e-15)
        assert gradient_or_none(detached, student) is None
        assert torch.allclose(
            gradient_or_none(detached, assistants[0]),
            gradient_or_none(combined, assistants[0]),
            rtol=1e-9,
            atol=1e-15,
        )


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_are_one_by_one_convolutions_with_bias(name: str) -> None:
    members = ["s", *(f"a{k}" for k in range(CASES[name]["n_assistants"]))]
    raw = [vector(name, f"{member}_raw") for member in members]
    adapters = []
    for member in members:
        weight = vector(name, f"{member}_w")
        adapter = nn.Linear(weight.shape[1], weight.shape[0]).double()
        adapter.load_state_dict({"weight": weight, "bias": vector(name, f"{member}_b")})
        adapters.append(adapter)
    head = JointHead([adapters], nn.Linear(vector(name, "t").shape[1], 3).double())
    student, assistants, _ = features(name)
    for actual, expected in zip(head.features(raw), (student, *assistants), strict=True):
        assert_same(actual, expected)
    vectors = [x.mean((2, 3)) for x in raw]
    logits = head.classifier((student + sum(assistants)).mean((2, 3)))
    assert_same(head(vectors), logits)
    fused = torch.stack([head.fused_classifier(i)(z) for i, z in enumerate(vectors)])
    assert torch.equal(head(vectors), fused.sum(0))
    assert_same(sum(fused.unbind(0)), logits)


@pytest.mark.parametrize("name", FULL)
def test_an_assistant_on_a_detached_residual_and_end_to_end_differ_in_who_is_moved(
    name: str,
) -> None:
    student, assistants, teacher = features(name)
    if len(assistants) > 1:
        return
    detached = residual_kd_loss(student, assistants, teacher)["assistant"]
    combined = residual_kd_loss(student, assistants, teacher, schedule="end_to_end")["combined"]
    assert detached.item() == pytest.approx(combined.item(), abs=1e-14)
    assert gradient_or_none(detached, student) is None
    of_student, of_assistant = torch.autograd.grad(combined, [student, assistants[0]])
    assert_same(of_student, of_assistant, error=1e-15)
    assert_same(of_assistant, torch.autograd.grad(detached, assistants[0])[0], error=1e-15)


def test_a_target_that_is_not_detached_would_train_the_student_twice() -> None:
    """The trap: with f_A = 0 the assistant's loss is then the student's a second time."""
    student, assistant, teacher = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    student.requires_grad_()
    wrong = F.mse_loss(torch.zeros_like(assistant), teacher - student)
    (twice,) = torch.autograd.grad(wrong, student)
    losses = residual_kd_loss(student, [torch.zeros_like(assistant).requires_grad_()], teacher)
    (once,) = torch.autograd.grad(losses["student"], student, retain_graph=True)
    assert torch.allclose(once, twice)
    assert gradient_or_none(losses["assistant"], student) is None


def test_later_assistants_fit_what_the_earlier_ones_left_and_move_none_of_them() -> None:
    student, first, second, teacher = torch.randn(4, 2, 4, 5, 5, dtype=torch.float64).unbind(0)
    leaves = [student.requires_grad_(), first.requires_grad_(), second.requires_grad_()]
    loss = residual_kd_loss(student, [first, second], teacher)["assistant"]
    expected = F.mse_loss(first, teacher - student) + F.mse_loss(second, teacher - student - first)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-14)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert grads[0] is None
    assert torch.allclose(grads[1], 2 * (first - (teacher - student)).detach() / first.numel())
    residual = teacher - student - first
    assert torch.allclose(grads[2], 2 * (second - residual).detach() / first.numel())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_residuals_of_large_features_survive_autocast(dtype: torch.dtype) -> None:
    teacher = torch.full((4, 8, 4, 4), 100.0)
    head = JointHead([[nn.Linear(8, 8), nn.Linear(8, 8)]], nn.Linear(8, 3))
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


def test_the_attention_distance_is_blind_to_sign_and_channels() -> None:
    """So the teacher's head cannot stay as it is: the head is always trained."""
    f = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert feature_distance(f, -f, distance="attention") == 0
    assert feature_distance(f, f[:, [2, 0, 3, 1]], distance="attention") < 1e-30
    distiller = distill_normalized(ResidualKD(LAST, distance="attention"))
    assert set(distiller(image_batch())) >= {"residual_kd/assistant/stage3"}
    assert distiller.student.joint_head().classifier.weight.requires_grad


@pytest.mark.parametrize("distance", ["mse", "attention"])
@pytest.mark.parametrize("schedule", ["joint", "end_to_end"])
def test_gradients_are_those_of_finite_differences(distance: str, schedule: str) -> None:
    """Of all leaves whose gradient is not stopped."""
    student, first, second, teacher = torch.randn(4, 2, 3, 2, 3, dtype=torch.float64).unbind(0)

    def student_loss(s: Tensor) -> Tensor:
        losses = residual_kd_loss(s, [first, second], teacher, distance=distance, schedule=schedule)
        return losses["student"]

    def last_assistant_loss(a: Tensor) -> Tensor:
        losses = residual_kd_loss(student, [first, a], teacher, distance=distance)
        return losses["assistant"]

    def combined_loss(s: Tensor, a: Tensor, b: Tensor) -> Tensor:
        losses = residual_kd_loss(s, [a, b], teacher, distance=distance, schedule="end_to_end")
        return losses["combined"]

    assert torch.autograd.gradcheck(student_loss, student.clone().requires_grad_())
    if schedule == "joint":
        assert torch.autograd.gradcheck(last_assistant_loss, second.clone().requires_grad_())
    else:
        leaves = tuple(x.clone().requires_grad_() for x in (student, first, second))
        assert torch.autograd.gradcheck(combined_loss, leaves)


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="features of one shape"):
        residual_kd_loss(torch.zeros(2, 3), [torch.zeros(2, 3)], torch.zeros(2, 4))
    with pytest.raises(UserError, match="distance is 'mse' or 'attention', got 'l1'"):
        feature_distance(torch.zeros(2, 3), torch.zeros(2, 3), distance="l1")
    with pytest.raises(UserError, match="schedule is 'joint', 'end_to_end' or 'stagewise', got"):
        residual_kd_loss(torch.zeros(2, 3), [], torch.zeros(2, 3), schedule="progressive")
