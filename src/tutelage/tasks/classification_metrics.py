"""Accuracy, calibration and closeness to a teacher; sums, so that batches and ranks add up exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage.core import Metrics
from tutelage.errors import UserError

BINS = 15


class ClassificationMetrics(Metrics):
    """Running metrics of a classifier.

    top1, top5 (more than five classes), nll (nats), ece (expected calibration error, 15 bins of equal width, L1;
    Guo et al., ICML 2017), and with a teacher: agreement (share of equal decisions) and kl (KL(teacher ‖ student)
    in nats at temperature 1). count is the number of labelled items.

    Args:
        num_classes: of the task.
        logits: reads (N, num_classes) logits from what a network gave.
        labels: reads the labels (N,) of a batch; −100 leaves an item out.
    """

    def __init__(self, num_classes: int, logits: Callable[[Any], Tensor], labels: Callable[[Any], Tensor]) -> None:
        # torchmetrics takes seconds to import, and only evaluation needs it
        from torchmetrics import MeanMetric, MetricCollection, SumMetric
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
        from torchmetrics.regression import KLDivergence

        self._logits, self._labels = logits, labels
        accuracy = {"top1": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if num_classes > 5:
            accuracy["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5, validate_args=False)
        calibration = MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1", validate_args=False)
        self._supervised = MetricCollection({**accuracy, "ece": calibration}, compute_groups=False)
        self._nll, self._count, self._agreement = MeanMetric(), SumMetric(), MeanMetric()
        self._kl = KLDivergence(log_prob=True)
        self._taught = False

    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch."""
        scores, labels = self._logits(out).float(), self._labels(batch)
        self._to(scores.device)
        known = labels >= 0
        scores, labels = scores[known], labels[known]
        if not len(labels):
            return
        self._supervised.update(scores.softmax(1), labels)
        self._nll.update(cross_entropy(scores, labels, reduction="none"))
        self._count.update(torch.tensor(float(len(labels))))
        if teacher is not None:
            told = self._logits(teacher).float()[known]
            self._taught = True
            self._agreement.update((scores.argmax(1) == told.argmax(1)).float())
            self._kl.update(told.log_softmax(1), scores.log_softmax(1))

    def compute(self) -> dict[str, float]:
        """Return the figures by name.

        Raises:
            UserError: no labelled item was seen, on any rank.
        """
        self._count.update(0.0)  # a rank without items has a share of 0
        count = float(self._count.compute())
        if count == 0:
            raise UserError("there is nothing to evaluate: no labelled item; check data.root and the split")
        figures = {name: float(value) for name, value in self._supervised.compute().items()}
        figures["nll"] = float(self._nll.compute())
        if self._taught:
            figures["agreement"] = float(self._agreement.compute())
            figures["kl"] = float(self._kl.compute())
        return {name: figures[name] for name in sorted(figures, key=_order)} | {"count": count}

    def _to(self, device: torch.device) -> None:
        if self._count.device != device:
            for metric in (self._supervised, self._nll, self._count, self._agreement, self._kl):
                metric.to(device)


def _order(name: str) -> int:
    return ["top1", "top5", "nll", "ece", "agreement", "kl"].index(name)
