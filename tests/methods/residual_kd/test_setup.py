"""Setting residual distillation up: the head's start, and layers that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.methods.harness import distill, image_batch, make_step, setup_method
from tests.methods.residual_kd.support import LAST, distill_normalized
from tutelage import Classification, Distiller, FrozenTeacher, ResidualKD, UserError
from tutelage.methods.residual_kd import feature_distance
from tutelage.models import small_cnn


def test_the_head_starts_from_a_copy_of_the_teachers_classifier() -> None:
    distiller = distill_normalized(ResidualKD(LAST))
    classifier = distiller.student.joint_head().classifier
    of_teacher = distiller.teacher.module("classifier")
    assert torch.equal(classifier.weight, of_teacher.weight)
    assert classifier is not of_teacher
    assert classifier.weight.requires_grad
    assert not of_teacher.weight.requires_grad
    distiller = distill_normalized(ResidualKD(LAST, classifier=None))
    fresh = distiller.student.joint_head().classifier
    assert not torch.equal(fresh.weight, of_teacher.weight)
    assert fresh.weight.shape == of_teacher.weight.shape


def test_a_head_that_does_not_see_the_tap_is_refused_with_both_widths() -> None:
    with pytest.raises(
        UserError, match=r"the classifier of the student takes 28 features, but the tap gives 14"
    ):
        distill_normalized(ResidualKD({"stage2": "stage3"}))
    with pytest.raises(
        UserError, match=r"the classifier of the teacher takes 48 features, but the tap gives 24"
    ):
        distill_normalized(ResidualKD({"stage3": "stage2"}))
    with pytest.raises(
        UserError, match="the classifier of the student does not see the tap's mean over positions"
    ):
        distill_normalized(ResidualKD({"stage3.0": "stage3"}))
    with pytest.raises(
        UserError, match="the classifier of the teacher does not see the tap's mean over positions"
    ):
        distill_normalized(ResidualKD({"stage3": "stage3.0"}))
    with pytest.raises(
        UserError, match="the classifier of the teacher is a SmallCNN, but must be a linear layer"
    ):
        distill_normalized(ResidualKD(LAST, classifier=""))


def test_maps_that_do_not_fit_are_refused_with_their_sizes() -> None:
    with pytest.raises(
        UserError,
        match=r"give \(12, 24, 7, 7\), \(12, 24, 7, 7\), the teacher \(12, 24, 14, 14\); pair",
    ):
        distill_normalized(ResidualKD({"stage3": "stage2"}, classifier=None))
    with pytest.raises(UserError, match="is always 0; give maps"):
        distill_normalized(ResidualKD(LAST, distance="attention"), size=4)


def test_the_terms_are_the_losses_of_the_adapted_features() -> None:
    distiller = distill_normalized(ResidualKD(LAST))
    step = distiller.step(image_batch())
    raw = [step.student.feature(name) for name in distiller.method.student_layers]
    features = distiller.student.joint_head().features(raw)
    expected = feature_distance(features[0], step.teacher.feature("stage3"))
    assert torch.isclose(distiller.method(step)["residual_kd/student/stage3"], expected)


def test_pooled_vectors_are_the_case_of_one_position() -> None:
    distiller = distill_normalized(ResidualKD({"flatten": "flatten"}))
    assert distiller(image_batch())["residual_kd/student/flatten"] > 0


def test_a_feature_that_is_nan_is_refused() -> None:
    teacher = small_cnn(width=12)
    nn.init.constant_(teacher.stage3[0].weight, float("nan"))
    with pytest.raises(UserError, match=r"the teacher's .* holds NaN"):
        distill(ResidualKD(LAST), teacher=teacher)


def test_a_method_that_did_not_build_its_student_says_so() -> None:
    with pytest.raises(
        UserError,
        match=r"no assistant yet; give the Distiller method.build_student\(student, teacher\)",
    ):
        ResidualKD(LAST)(make_step())
    teacher, method = FrozenTeacher(small_cnn(width=12)), ResidualKD(LAST)
    student = method.build_student(small_cnn(), teacher)
    distiller = Distiller(student, teacher, method, Classification(num_classes=10))
    with pytest.raises(UserError, match="the adapters are not built yet"):
        distiller.method(distiller.step(image_batch()))
    with pytest.raises(UserError, match=r"no module 'student.stage3' .*method.build_student"):
        Distiller(small_cnn(), teacher, ResidualKD(LAST), Classification(num_classes=10))
    with pytest.raises(UserError, match=r"no feature 'student.stage3'"):
        setup_method(method, make_step())


def test_a_teacher_of_other_classes_needs_a_new_classifier() -> None:
    with pytest.raises(
        UserError, match="the teacher has 20 classes, the student 10; set classifier to None"
    ):
        distill(
            ResidualKD(LAST),
            student=small_cnn(),
            teacher=small_cnn(width=12, num_classes=20),
        )
