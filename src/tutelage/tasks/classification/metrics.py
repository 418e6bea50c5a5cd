"""Accuracy, calibration and closeness to a teacher, from sums that batches and ranks add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage.core import Batch, Metrics
from tutelage.core.distributed import is_distributed, sum_over_ranks
from tutelage.errors import UserError
from tutelage.tasks._checks import num_undefined, refuse_labels, refuse_undefined

NUM_BINS = 15


class CalibrationError:
    """Expected calibration error: the sum over bins of share · |accuracy - confidence|.

    The bins of the confidence are [0, 1/15), [1/15, 2/15), ..., [14/15, 1]. The last one holds 1
    too, which a saturated softmax gives; torchmetrics puts it into a bin of its own.

    >>> error = CalibrationError()
    >>> error.update(torch.tensor([[0.95, 0.05], [0.0, 1.0]]), torch.tensor([0, 0]))
    >>> round(error.compute(), 4)
    0.475
    """

    def __init__(self) -> None:
        # By bin: the number of items, the sum of their confidences, the number of right ones.
        self._sums = torch.zeros(3, NUM_BINS, dtype=torch.float64)

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add probabilities (N, C) and labels (N,)."""
        confidence, prediction = probabilities.cpu().double().max(1)
        bins = (confidence * NUM_BINS).nan_to_num(0.0).long().clamp(max=NUM_BINS - 1)
        right = (prediction == labels.cpu()).double()
        values = torch.stack([torch.ones_like(confidence), confidence, right])
        self._sums.index_add_(1, bins, values)

    def compute(self) -> float:
        """Return the error over all ranks."""
        sums = sum_over_ranks(self._sums) if is_distributed() else self._sums
        counts, confidences, right = sums
        return float((right - confidences).abs().sum() / counts.sum())


class ClassificationMetrics(Metrics):
    """Running metrics of a classifier.

    - `top1`, and `top5` with more than five classes
    - `nll` in nats
    - `ece`: expected calibration error (L1, 15 bins of equal width, of which the last holds a
      confidence of 1; Guo et al., ICML 2017)
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
        from torchmetrics.classification import MulticlassAccuracy

        self._logits = logits
        self._num_classes = num_classes
        top1 = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        # In the order in which `compute` returns them.
        self._supervised: dict[str, Any] = {"top1": top1}
        if num_classes > 5:
            self._supervised["top5"] = MulticlassAccuracy(
                num_classes, average="micro", top_k=5, validate_args=False
            )
        # NaN is counted and refused by `compute`, so torchmetrics need not warn of it.
        self._supervised["nll"] = MeanMetric(nan_strategy="disable")
        self._calibration = CalibrationError()
        self._compared: dict[str, Any] = {
            "agreement": MeanMetric(),
            "teacher_kl": MeanMetric(nan_strategy="disable"),
        }
        self._num_samples = SumMetric()
        self._num_compared = SumMetric()
        self._undefined = {"network": SumMetric(), "teacher": SumMetric()}

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch.

        Raises:
            UserError: If labels are not (N,) int64, or count more classes than the task has.
        """
        logits = self._logits(output).float()
        self._to(logits.device)
        labels = batch.labels
        refuse_labels(labels, self._num_classes)
        if labels.shape != logits.shape[:1]:
            raise UserError(
                f"there are {tuple(labels.shape)} labels for {tuple(logits.shape)} logits; give "
                "one class for each item (N,), of one-hot labels labels.argmax(1)"
            )
        labeled = labels >= 0
        logits = logits[labeled]
        labels = labels[labeled]
        if not len(labels):
            return
        self._num_samples.update(float(len(labels)))
        count = float(num_undefined(logits))
        self._undefined["network"].update(count)
        if count:  # `compute` refuses it on all ranks
            return
        probabilities = logits.softmax(1)
        for name, metric in self._supervised.items():
            if name != "nll":
                metric.update(probabilities, labels)
        self._supervised["nll"].update(cross_entropy(logits, labels, reduction="none"))
        self._calibration.update(probabilities, labels)
        if teacher is not None:
            teacher_logits = self._logits(teacher).float()[labeled]
            count = float(num_undefined(teacher_logits))
            self._undefined["teacher"].update(count)
            if count:
                return
            equal = logits.argmax(1) == teacher_logits.argmax(1)
            self._compared["agreement"].update(equal.float())
            divergence = _divergence(teacher_logits.log_softmax(1), logits.log_softmax(1))
            self._compared["teacher_kl"].update(divergence)
            self._num_compared.update(float(len(labels)))

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no labeled item was seen, on any rank, or if logits are NaN.
        """
        # A rank without items adds 0; all ranks must take part in every sum.
        self._num_samples.update(0.0)
        self._num_compared.update(0.0)
        for metric in self._undefined.values():
            metric.update(0.0)
        num_samples = float(self._num_samples.compute())
        if num_samples == 0:
            raise UserError(
                "there is nothing to evaluate: no labeled item; check data.root and the split"
            )
        for role, metric in self._undefined.items():
            refuse_undefined(role, int(metric.compute()), f"{num_samples:.0f} items")
        metrics = {name: float(metric.compute()) for name, metric in self._supervised.items()}
        metrics["ece"] = self._calibration.compute()
        if self._num_compared.compute() > 0:
            for name, metric in self._compared.items():
                metrics[name] = float(metric.compute())
        metrics["num_samples"] = num_samples
        return metrics

    def _to(self, device: torch.device) -> None:
        if self._num_samples.device == device:
            return
        sums = (self._num_samples, self._num_compared, *self._undefined.values())
        for metric in (*self._supervised.values(), *self._compared.values(), *sums):
            metric.to(device)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher ‖ student) (N,) of log-probabilities (N, C).

    A class that the teacher rules out, with a logit of -∞, adds nothing; torchmetrics gives NaN.

    >>> ruled_out = torch.tensor([[0.0, float("-inf")]])
    >>> _divergence(ruled_out, torch.tensor([[0.5, 0.5]]).log()).tolist()
    [0.6931471824645996]
    """
    probabilities = teacher.exp()
    terms = probabilities * (teacher - student)
    return terms.where(probabilities > 0, 0.0).sum(1)
