"""SRD, semantic representation distillation: the student's features must mean the same to the teacher's classifier.

Source: J. Yang, X. Zhu, A. Bulat, B. Martinez, G. Tzimiropoulos, "Knowledge Distillation Meets Open-Set Semi-Supervised
Learning", IJCV 2024, arXiv 2205.06701; equations as in the official code jingyang2017/SRD_ossl@d295cd8 (MIT).

    x̂ = φ(x_s),  ẑ = h_t(GAP x̂),  z_t = h_t(GAP x_t)
    L = CE(z_s, y) + weight · mean (ẑ - z_t)² + feature_weight · mean (GAP x̂ - GAP x_t)²

x_s, x_t: last maps; φ: a trained connector, dropped at ship; h_t: the teacher's frozen classifier, open to gradients.
The means are over all images, labelled or not, and classes or channels. No image is rejected or pseudo-labelled: one of
an unseen class is one more point to agree on. Symbols → arguments: w_srd `weight`, w_R `feature_weight`.

Differs from the official code:
- An unlabelled image meets its own teacher logits; with separate batches (`--v2`) there those of a labelled image.
- Maps of any size: there a fixed 8×8 window. The classifier is found by name, and must give the teacher's logits from
  the tapped feature; there every model's forward is patched.
- The teacher needs no gradient and its dropout is off; there gradients pile up in its classifier.

If C_t is above the rank of h_t, `weight` alone leaves directions of the feature free. Its term shrinks as 1/K: raise
it with the classes. Cost: φ, a 1×1 convolution, and the unlabelled images' passes through both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tutelage.core import Method, Step, Teacher
from tutelage.core.batch import batch_inputs, batch_labels
from tutelage.core.eval_mode import eval_mode
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.connector import check_layer, connector
from tutelage.methods.head import Head, find_head
from tutelage.methods.parts import check_any, check_finite, check_positive
from tutelage.methods.srd_losses import DISTANCES, srd_feature_loss, srd_loss
from tutelage.similarity.gather import joined
from tutelage.similarity.gram import full_precision, promote


class SRD(Method):
    """SRD; terms `srd` and `srd.feature`.

    Args:
        student_layer, teacher_layer: taps of the last maps, after norm and activation, or of what the classifier gets.
        classifier: name of the teacher's; None looks for the usual names.
        weight, feature_weight: of the two terms; None or 0 is off.
        distance, temperature, maps: see `srd_loss` and `srd_feature_loss`.
        relu: end the connector in a ReLU; None does so if the teacher's feature is nowhere negative.
        unlabelled: pool of `tutelage.data.OpenSet` → images in a batch per labelled one, as {"near": 0.5, "far": 0.5}.
        task_weight: factor of the supervised loss.
    """

    _head: Head
    card = Card(
        paper="J. Yang et al., Knowledge Distillation Meets Open-Set Semi-Supervised Learning, IJCV 2024, 2205.06701",
        tasks="classification",
        needs="a live teacher with a classifier; the last feature of both networks; unlabelled images if there are any",
        trains="a 1×1 convolution with batch norm",
    )

    def __init__(
        self, student_layer: str = "stage3", teacher_layer: str = "stage3", classifier: str | None = None,
        weight: float | None = 1.0, feature_weight: float | None = 1.0, distance: str = "mse", temperature: float = 4.0,
        maps: bool = False, relu: bool | None = None, unlabelled: Mapping[str, float] | None = None,
        task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if distance not in DISTANCES:
            raise UserError(f"SRD has a distance in {DISTANCES}, got {distance!r}")
        check_positive("the temperature of SRD", temperature)
        self.student_layer, self.teacher_layer, self.classifier = student_layer, teacher_layer, classifier
        self.weight, self.feature_weight, self.distance = weight, feature_weight, distance
        self.temperature, self.maps, self.relu, self.task_weight = temperature, maps, relu, task_weight
        self.unlabelled, self.connector = dict(unlabelled or {}), nn.Sequential()
        self.student_taps, self.teacher_taps = (student_layer,), (teacher_layer,)

    def data(self, train: Any, teacher: Teacher) -> Any:
        """Join the unlabelled images."""
        return train.beside(self.unlabelled) if self.unlabelled else train

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Find the teacher's classifier, check that it gives the teacher's logits, and build the connector."""
        check_finite(example)
        mine, theirs = example.student.tap(self.student_layer), example.teacher.tap(self.teacher_layer)
        images = next((x.shape for x in batch_inputs(example.batch) if isinstance(x, Tensor) and x.ndim == 4), None)
        check_layer(mine, "student", self.student_layer, images)
        check_layer(theirs, "teacher", self.teacher_layer, images)
        self._head = find_head(teacher, self.classifier, self.teacher_layer, theirs, example.teacher.logits)
        self.connector = connector(mine, theirs, self.relu)
        with eval_mode(self.connector):
            check_any("SRD", self(example))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        features, told = self.connector(step.student.tap(self.student_layer)), step.teacher.tap(self.teacher_layer)
        terms = {}
        if self.weight:
            with full_precision(told.device):
                pair = self._head(promote(features)), self._head(promote(told))
            crossed, logits = (joined(z) for z in pair) if self.distance == "dist" else pair
            labels = batch_labels(step.batch) if self.distance == "ce" else None
            terms["srd"] = self.weight * srd_loss(crossed, logits, self.distance, self.temperature, labels)
        if self.feature_weight:
            terms["srd.feature"] = self.feature_weight * srd_feature_loss(features, told, self.maps)
        return terms
