"""SRD, semantic representation distillation: features that the teacher's classifier reads alike.

Source: J. Yang, X. Zhu, A. Bulat, B. Martinez, G. Tzimiropoulos, "Knowledge Distillation Meets
Open-Set Semi-Supervised Learning", IJCV 2024, arXiv 2205.06701; equations as in the official code
jingyang2017/SRD_ossl@d295cd8 (MIT).

    x̂ = φ(x_s),   ẑ = h_t(GAP x̂),   z_t = h_t(GAP x_t)
    L = CE(z_s, y) + weight · mean (ẑ - z_t)² + feature_weight · mean (GAP x̂ - GAP x_t)²

x_s, x_t: last maps; φ: a trained connector, which is not deployed; h_t: the teacher's frozen
classifier, through which gradients pass. The means are over all images, labeled or not, and over
classes or channels. No image is rejected or pseudo-labeled: one of an unseen class is one more
point to agree on. Symbols → arguments: w_srd `weight`, w_R `feature_weight`.

Differs from the official code:
- An unlabeled image is compared with its own teacher logits; with separate batches (`--v2`) the
  official code compares it with those of a labeled image.
- Maps have any size instead of a fixed 8×8 window. The classifier is found by name and must give
  the teacher's logits from the tapped feature, instead of patching every model's forward.
- The teacher needs no gradient and its dropout is off; gradients pile up in its classifier there.

If C_t is above the rank of h_t, `weight` alone leaves directions of the feature free. Its term
shrinks as 1/K: raise it with the number of classes.

Cost: φ, a 1×1 convolution, and the unlabeled images' passes through both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import IGNORE_INDEX, Around, Method, MethodInfo, Step, Teacher
from tutelage.core._arguments import check_layer_names
from tutelage.core.distributed import all_gather_with_grad, mean_over_ranks
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._checks import (
    check_choice,
    check_features,
    check_floating,
    check_labels,
    check_positive,
    check_weights,
)
from tutelage.methods._deviations import deviations
from tutelage.methods._projection import check_layer, connector, pooled
from tutelage.methods._unlabeled import checked_shares
from tutelage.methods.fitnet import fitnet_loss
from tutelage.methods.kd import kd_loss
from tutelage.methods.srd.teacher_head import TeacherHead, find_head
from tutelage.similarity._checks import as_same_dtype
from tutelage.similarity._gram import unit_rows

LogitDistance = Literal["mse", "kl", "ce", "dist"]


def srd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    *,
    distance: LogitDistance = "mse",
    temperature: float = 4.0,
) -> Tensor:
    """Return how far the student's features are from the teacher's in the teacher's classifier.

    >>> import torch
    >>> srd_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        student: ẑ, logits (N, K) of the student's features in the teacher's classifier.
        teacher: z_t, the teacher's logits (N, K).
        labels: (N,) for `"ce"`, where -100 is left out.
        distance: `"mse"` (official); `"kl"`, T² KL(z_t ‖ ẑ); `"dist"`, 1 - Pearson's correlation
            over an image's classes plus the same over a class's images; `"ce"`, the cross-entropy
            of ẑ with the labels.
        temperature: T of `"kl"`.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: If the shapes differ or are empty, a dtype is not floating, or labels are
            missing or none of the K classes.
    """
    check_choice("distance", distance, LogitDistance)
    check_floating("SRD needs floating-point logits", student, teacher)
    if student.shape != teacher.shape or student.ndim != 2 or not student.numel():
        raise UserError(
            f"SRD needs logits (N, K) of one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}; give both the same images and the teacher's classifier"
        )
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher)
        if distance == "ce":
            return _cross_entropy(student, labels)
        if distance == "dist":
            return _correlation_distance(student, teacher)
        if distance == "kl":
            return kd_loss(student, teacher, temperature=temperature)
        return fitnet_loss(student, teacher)


def srd_feature_loss(student: Tensor, teacher: Tensor, *, maps: bool = False) -> Tensor:
    """Return the mean squared difference of pooled features.

    Args:
        student: map (N, C, H, W) or vector (N, C), after the connector.
        teacher: map or vector of as many channels.
        maps: compare whole maps, of which the larger is averaged to the size of the smaller.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: If N or C differ, or with `maps` if a feature is no map.
    """
    check_features("SRD", student, teacher)
    student, teacher = as_same_dtype(student, teacher)
    if not maps:
        return fitnet_loss(pooled(student), pooled(teacher))
    if student.ndim != 4 or teacher.ndim != 4:
        raise UserError(
            f"SRD's maps are (N, C, H, W), got {tuple(student.shape)} and {tuple(teacher.shape)}; "
            "set maps to False"
        )
    size = (
        min(student.shape[-2], teacher.shape[-2]),
        min(student.shape[-1], teacher.shape[-1]),
    )
    return fitnet_loss(
        F.adaptive_avg_pool2d(student, size),
        F.adaptive_avg_pool2d(teacher, size),
    )


class SRD(Method):
    """SRD; terms `srd` and `srd/feature`.

    >>> SRD(distance="kl", unlabeled={"near": 0.5}).student_layers
    ('stage3',)

    Args:
        student_layer: the last map, after norm and activation, or what the classifier gets.
        teacher_layer: the same of the teacher.
        classifier: name of the teacher's classifier; None looks for the common names.
        weight: factor of `srd`; None or 0 is off.
        feature_weight: factor of `srd/feature`; None or 0 is off.
        distance: of the logits, see `srd_loss`.
        temperature: of `"kl"`.
        maps: compare whole maps, see `srd_feature_loss`.
        relu: end the connector in a ReLU; None adds one if no value of the teacher's feature is
            negative.
        unlabeled: pool of `tutelage.data.OpenSet` → images in a batch per labeled one, such as
            {"near": 0.5, "far": 0.5}.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If the distance is unknown or the temperature is not positive.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="J. Yang et al., Knowledge Distillation Meets Open-Set Semi-Supervised Learning, "
        "IJCV 2024, arXiv 2205.06701",
        tasks="classification",
        needs="a live teacher with a classifier; the last feature of both networks; unlabeled "
        "images if there are any",
        trains="a 1×1 convolution with batch norm",
    )
    search_space = (Around("weight", 10.0), Around("feature_weight", 10.0))

    def __init__(
        self,
        *,
        student_layer: str = "stage3",
        teacher_layer: str = "stage3",
        classifier: str | None = None,
        weight: float | None = 1.0,
        feature_weight: float | None = 1.0,
        distance: LogitDistance = "mse",
        temperature: float = 4.0,
        maps: bool = False,
        relu: bool | None = None,
        unlabeled: Mapping[str, float] | None = None,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("SRD", weight, feature_weight, optional=True)
        check_weights("SRD", task_weight)
        check_choice("distance", distance, LogitDistance)
        check_positive("the temperature of SRD", temperature)
        check_layer_names("the layers of SRD", [student_layer, teacher_layer])
        self.student_layer = student_layer
        self.teacher_layer = teacher_layer
        self.classifier = classifier
        self.weight = weight
        self.feature_weight = feature_weight
        self.distance = distance
        self.temperature = temperature
        self.maps = maps
        self.relu = relu
        self.unlabeled = checked_shares("SRD", {} if unlabeled is None else unlabeled)
        self.task_weight = task_weight
        self.student_layers = (student_layer,)
        self.teacher_layers = (teacher_layer,)
        self.connector = nn.Sequential()
        self._head: TeacherHead | None = None

    def build_data(self, train: Any, teacher: Teacher) -> Any:
        """Let the unlabeled images join every batch."""
        return train.with_streams(self.unlabeled) if self.unlabeled else train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Find the teacher's classifier, and build the connector."""
        student_feature = example.student.feature(self.student_layer)
        teacher_feature = example.teacher.feature(self.teacher_layer)
        images = example.batch.inputs
        is_image_batch = isinstance(images, Tensor) and images.ndim == 4
        image_shape = images.shape if is_image_batch else None
        check_layer(student_feature, "student", self.student_layer, image_shape)
        check_layer(teacher_feature, "teacher", self.teacher_layer, image_shape)
        self._head = find_head(
            teacher,
            name=self.classifier,
            layer=self.teacher_layer,
            feature=teacher_feature,
            logits=example.teacher.logits,
        )
        self.connector = connector(student_feature, teacher_feature, self.relu)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        student_feature = self.connector(step.student.feature(self.student_layer))
        teacher_feature = step.teacher.feature(self.teacher_layer)
        terms: dict[str, Tensor] = {}
        if self.weight:
            student_logits, teacher_logits = self._logits(student_feature, teacher_feature)
            loss = srd_loss(
                student_logits,
                teacher_logits,
                step.batch.labels if self.distance == "ce" else None,
                distance=self.distance,
                temperature=self.temperature,
            )
            terms["srd"] = self.weight * loss
        if self.feature_weight:
            loss = srd_feature_loss(student_feature, teacher_feature, maps=self.maps)
            terms["srd/feature"] = self.feature_weight * loss
        return terms

    def _logits(self, student_feature: Tensor, teacher_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's classifier of both features."""
        if self._head is None:
            raise UserError("SRD is not set up yet; call distiller.setup(batch) first")
        with full_precision(teacher_feature.device):
            student_logits = self._head(promote(student_feature))
            teacher_logits = self._head(promote(teacher_feature))
        if self.distance == "dist":
            # It correlates the images of a batch, so it needs those of all processes.
            student_logits = all_gather_with_grad(student_logits)
            teacher_logits = all_gather_with_grad(teacher_logits)
        return student_logits, teacher_logits


def _cross_entropy(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Return the mean over the labeled images; 0, not NaN, if there are none."""
    if labels is None:
        raise UserError("distance 'ce' needs labels (N,), got None; give them to srd_loss")
    check_labels("SRD", labels, logits)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return mean_over_ranks(total, (labels != IGNORE_INDEX).sum())


def _correlation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - Pearson's correlation over classes, plus the same over images.

    What is constant up to rounding has no correlation, and no gradient.
    """
    total = student.new_tensor(2.0)
    for x, y in ((student, teacher), (student.mT, teacher.mT)):
        x_rows = unit_rows(deviations(x))
        y_rows = unit_rows(deviations(y))
        total = total - (x_rows * y_rows).sum(1).mean()
    return total
