"""The losses of SRD against the numbers of the official code, and what follows from the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import cases, make_step, setup_method, tensor
from tutelage import SRD, FrozenTeacher, Step, UserError
from tutelage.methods import kd_loss, srd_feature_loss, srd_loss
from tutelage.methods._projection import pooled

CASES = cases("srd")
WHOLE = [name for name, case in CASES.items() if case["group"] == "srd"]


def value(case: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("srd", f"{case}_{key}", dtype)


def classifier(case: str, dtype: torch.dtype) -> nn.Linear:
    weight = value(case, "fc_w", dtype)
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    layer.load_state_dict({"weight": weight, "bias": value(case, "fc_b", dtype)})
    return layer.requires_grad_(False)


def official(case: str, dtype: torch.dtype = torch.float64) -> tuple[SRD, Step]:
    """Return our method with a case's weights, and the joint batch."""
    numbers = CASES[case]
    student = value(case, "feat_s", dtype).requires_grad_()
    teacher, head = value(case, "feat_t", dtype), classifier(case, dtype)
    labels = torch.full((len(student),), -100)
    labels[: numbers["B_labelled"]] = value(case, "labels", torch.int64)
    step = make_step(
        value(case, "logits_s", dtype),
        head(pooled(teacher)),
        labels,
        student_features={"s": student},
        teacher_features={"t": teacher},
    )
    method = SRD(
        student_layer="s",
        teacher_layer="t",
        classifier="fc",
        feature_weight=numbers["fm_weight"],
    )
    setup_method(method, step, FrozenTeacher(nn.ModuleDict({"fc": head})))
    state = {
        "0.weight": value(case, "conv_w"),
        "1.weight": value(case, "bn_weight"),
        "1.bias": value(case, "bn_bias"),
    }
    method.connector.to(dtype).load_state_dict({**method.connector.state_dict(), **state})
    return method, step


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-6)]
)
def test_values_and_gradient_are_the_official_ones(
    case: str, dtype: torch.dtype, rtol: float, atol: float
) -> None:
    def assert_official(actual: Tensor, key: str) -> None:
        expected = value(case, key, dtype)
        torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)

    method, step = official(case, dtype)
    teacher_logits, labels = step.teacher.logits, step.batch.labels
    assert_official(teacher_logits, "z_t")
    student, weight = step.student.feature("s"), CASES[case]["fm_weight"]
    terms = method(step)
    assert_official(terms["srd"], "L_srd")
    assert_official(terms["srd/feature"] / weight, "L_fm")
    total = sum(terms.values())
    assert_official(total, "L_kd")
    supervised = F.cross_entropy(step.student.logits, labels, ignore_index=-100)
    assert_official(supervised, "L_ce")
    assert_official(supervised + total, "L_total")
    total.backward()
    assert_official(student.grad, "grad_feat_s_L_kd")
    norm = method.connector[1]
    assert_official(norm.running_mean, "bn_running_mean_after")
    assert_official(norm.running_var, "bn_running_var_after")
    assert_official(method.connector.eval()(student), "x_hat_eval")
    norm.reset_running_stats()
    features = method.connector.train()(student)
    assert_official(features, "x_hat")
    logits = classifier(case, dtype)(pooled(features))
    assert_official(logits, "z_hat")
    for temperature in (1, 4):
        loss = srd_loss(logits, teacher_logits, distance="kl", temperature=temperature)
        assert_official(loss, f"L_srd_kl_T{temperature}")
    assert_official(srd_loss(logits, teacher_logits, labels, distance="ce"), "L_srd_ce_hard")


@pytest.mark.parametrize(
    "case", [name for name, case in CASES.items() if case["group"] == "DistillKL"]
)
def test_the_divergence_is_the_official_one(case: str) -> None:
    student, teacher = value(case, "logits_s"), value(case, "logits_t")
    loss = srd_loss(student, teacher, distance="kl", temperature=CASES[case]["T"])
    assert loss.item() == pytest.approx(value(case, "kd").item(), abs=1e-12)
    loss = srd_loss(student, teacher, distance="kl", temperature=3.0)
    assert torch.equal(loss, kd_loss(student, teacher, temperature=3.0))


def test_an_unlabeled_image_is_compared_with_its_own_teacher_logits() -> None:
    student, own, labeled = (value("case7", key) for key in ("z_hat_u", "z_t_u", "z_t_l"))
    right, wrong = value("case7", "L_srd_u_fixed"), value("case7", "L_srd_u_official_bug")
    assert srd_loss(student, own).item() == pytest.approx(right.item(), abs=1e-12)
    assert srd_loss(student, labeled).item() == pytest.approx(wrong.item(), abs=1e-12)


def test_both_terms_are_one_quadratic_form_and_the_bias_cancels() -> None:
    method, step = official("case0")
    terms = method(step)
    norm = method.connector[1]
    norm.reset_running_stats()
    student = pooled(method.connector(step.student.feature("s")))
    d = student - pooled(step.teacher.feature("t"))
    w, classes = value("case0", "fc_w"), value("case0", "fc_w").shape[0]
    form = torch.eye(w.shape[1], dtype=w.dtype) / w.shape[1] + w.T @ w / classes
    expected = torch.einsum("ni,ij,nj->n", d, form, d).mean().item()
    assert sum(terms.values()).item() == pytest.approx(expected, abs=1e-12)
    method._head.classifier.module.bias.add_(5.0)
    assert method(step)["srd"].item() == pytest.approx(terms["srd"].item(), abs=1e-12)


def test_without_the_feature_term_directions_stay_free() -> None:
    """More channels than classes: features may move in the kernel of the classifier unseen."""
    head = nn.Linear(6, 3).requires_grad_(False)
    free = torch.linalg.svd(head.weight).Vh[3:]
    features = torch.randn(4, 6)
    moved = features + torch.randn(4, 3) @ free
    assert srd_loss(head(moved), head(features)).item() < 1e-10
    assert srd_feature_loss(moved, features) > 0.1


def mean_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean of Pearson's correlations of the rows."""
    return torch.stack(
        [torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(a, b, strict=True)]
    ).mean()


def test_correlation_is_blind_to_scale_and_exact_otherwise() -> None:
    z = torch.randn(5, 4, dtype=torch.float64)
    assert srd_loss(3 * z, z, distance="dist").item() == pytest.approx(0.0, abs=1e-12)
    other = torch.randn(5, 4, dtype=torch.float64)
    expected = 2 - mean_correlation(z, other) - mean_correlation(z.T, other.T)
    loss = srd_loss(z, other, distance="dist")
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    constant = torch.zeros(5, 4, requires_grad=True)
    srd_loss(constant, z.float(), distance="dist").backward()
    assert constant.grad.isfinite().all()


def test_maps_may_be_compared_position_by_position() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    assert torch.isclose(srd_feature_loss(teacher, teacher + 1, maps=True), torch.tensor(1.0))
    averaged = F.avg_pool2d(teacher, 2)
    loss = srd_feature_loss(student, teacher, maps=True)
    assert torch.isclose(loss, F.mse_loss(student, averaged))
    shifted = teacher.roll(1, -1)
    assert srd_feature_loss(shifted, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert srd_feature_loss(shifted, teacher, maps=True) > 0.1


def test_options_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="distance is 'mse', 'kl', 'ce' or 'dist', got 'l1'"):
        SRD(distance="l1")
    with pytest.raises(UserError, match="the temperature of SRD must be positive, got 0"):
        SRD(distance="kl", temperature=0)
    with pytest.raises(UserError, match=r"distance 'ce' needs labels \(N,\), got None"):
        srd_loss(torch.zeros(2, 3), torch.zeros(2, 3), distance="ce")
    with pytest.raises(UserError, match="distance is 'mse', 'kl', 'ce' or 'dist', got 'l1'"):
        srd_loss(torch.zeros(2, 3), torch.zeros(2, 3), distance="l1")


def test_tensors_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"logits \(N, K\) of one shape, got \(2, 3\) and \(2, 4\)"):
        srd_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"got \(2, 3\) and \(4, 3\)"):
        srd_loss(torch.zeros(2, 3), torch.zeros(4, 3))
    with pytest.raises(UserError, match=r"\(2, 3\) from the student and \(2, 5\) from the teacher"):
        srd_feature_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5))
    step = make_step(student_features={"stage3": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(UserError, match=r"SRD is not set up yet; call distiller.setup"):
        SRD()._logits(step.student.feature("stage3"), step.student.feature("stage3"))
