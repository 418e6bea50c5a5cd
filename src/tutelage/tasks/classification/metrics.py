"""Accuracy, calibration and closeness to a teacher, from sums that batches and ranks add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage.core import Batch, Metrics
from tutelage.errors import UserError

NUM_BINS = 15


class ClassificationMetrics(Metrics):
    """Running metrics of a classifier.

    - `top1`, and `top5` with more than five classes
    - `nll` in nats
    - `ece`: expected calibration error (L1, 15 bins of equal width; Guo et al., ICML 2017)
    - with a teacher `agreement`, the share of equal decisions, and `teacher_kl`,
      KL(teacher ‖ student) in nats at temperature 1
    - `num_samples`: the number of labeled items

    Args:
        num_classes: of the task.
        logits: reads logits (N, num_classes) from a network's output.
    """

    def __init__(self, num_classes: int, logits: Callable[[Any], Tensor]) -> None:
        # torchmetrics takes seconds to import, and only evaluation needs it.
        from torchmetrics import MeanMetric, SumMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
        from torchmetrics.regression import KLDivergence

        self._logits = logits
        top1 = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        # In the order in which `compute` returns them.
        self._supervised: dict[str, Any] = {"top1": top1}
        if num_classes > 5:
            self._supervised["top5"] = MulticlassAccuracy(
                num_classes, average="micro", top_k=5, validate_args=False
            )
        self._supervised["nll"] = MeanMetric()
        self._supervised["ece"] = MulticlassCalibrationError(
            num_classes, n_bins=NUM_BINS, norm="l1", validate_args=False
        )
        self._compared: dict[str, Any] = {
            "agreement": MeanMetric(),
            "teacher_kl": KLDivergence(log_prob=True),
        }
        self._num_samples = SumMetric()
        self._num_compared = SumMetric()

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        logits = self._logits(output).float()
        self._to(logits.device)
        labeled = batch.labels >= 0
        logits = logits[labeled]
        labels = batch.labels[labeled]
        if not len(labels):
            return
        probabilities = logits.softmax(1)
        for name, metric in self._supervised.items():
            if name != "nll":
                metric.update(probabilities, labels)
        self._supervised["nll"].update(cross_entropy(logits, labels, reduction="none"))
        self._num_samples.update(float(len(labels)))
        if teacher is not None:
            teacher_logits = self._logits(teacher).float()[labeled]
            equal = logits.argmax(1) == teacher_logits.argmax(1)
            self._compared["agreement"].update(equal.float())
            self._compared["teacher_kl"].update(
                teacher_logits.log_softmax(1), logits.log_softmax(1)
            )
            self._num_compared.update(float(len(labels)))

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no labeled item was seen, on any rank.
        """
        # A rank without items adds 0; all ranks must take part in every sum.
        self._num_samples.update(0.0)
        self._num_compared.update(0.0)
        num_samples = float(self._num_samples.compute())
        if num_samples == 0:
            raise UserError(
                "there is nothing to evaluate: no labeled item; check data.root and the split"
            )
        metrics = {name: float(metric.compute()) for name, metric in self._supervised.items()}
        if self._num_compared.compute() > 0:
            for name, metric in self._compared.items():
                metrics[name] = float(metric.compute())
        metrics["num_samples"] = num_samples
        return metrics

    def _to(self, device: torch.device) -> None:
        if self._num_samples.device == device:
            return
        sums = (self._num_samples, self._num_compared)
        for metric in (*self._supervised.values(), *self._compared.values(), *sums):
            metric.to(device)
