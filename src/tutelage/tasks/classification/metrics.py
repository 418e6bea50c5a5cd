"""Accuracy, calibration and closeness to a teacher, from sums that batches and ranks add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage.core import Batch, Metrics
from tutelage.errors import UserError
from tutelage.tasks._checks import num_undefined, refuse_labels, refuse_undefined
from tutelage.tasks._sums import RunningSums

NUM_BINS = 15


def calibration_sums(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the sums from which `calibration_error` computes, (3, 15) float64.

    By bin of the confidence: the number of items, the sum of their confidences, the number of right
    ones. The bins are [0, 1/15), [1/15, 2/15), ..., [14/15, 1]. The last one holds 1 too, which a
    saturated softmax gives; torchmetrics puts it into a bin of its own.

    >>> probabilities = torch.tensor([[0.95, 0.05], [0.0, 1.0]])
    >>> calibration_sums(probabilities, torch.tensor([0, 0]))[:, -1].tolist()
    [2.0, 1.949999988079071, 1.0]

    Args:
        probabilities: (N, C).
        labels: (N,), int64.
    """
    # Apple's devices have no float64, in which an edge of a bin is where it is in the definition.
    confidence, prediction = probabilities.max(1)
    on_mps = confidence.device.type == "mps"
    confidence = confidence if on_mps else confidence.double()
    # NaN goes anywhere: metrics of undefined outputs are refused.
    bins = (confidence * NUM_BINS).nan_to_num(0.0).long().clamp(max=NUM_BINS - 1)
    right = (prediction == labels).to(confidence.dtype)
    values = torch.stack([torch.ones_like(confidence), confidence, right])
    return values.new_zeros(3, NUM_BINS).index_add_(1, bins, values)


def calibration_error(sums: Tensor) -> float:
    """Return the expected calibration error: the sum over bins of share · |accuracy - confidence|.

    >>> sums = calibration_sums(torch.tensor([[0.95, 0.05], [0.0, 1.0]]), torch.tensor([0, 0]))
    >>> round(calibration_error(sums), 4)
    0.475

    Args:
        sums: of `calibration_sums`, added up over batches.
    """
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
        self._logits = logits
        self._num_classes = num_classes
        self._has_top5 = num_classes > 5
        scalars = ("num_samples", "undefined", "top1", "top5", "nll")
        compared = ("num_compared", "teacher_undefined", "agreement", "teacher_kl")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*scalars, *compared), ())
        self._sums = RunningSums({**shapes, "calibration": (3, NUM_BINS)})

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch.

        Raises:
            UserError: If labels are not (N,) int64, or count more classes than the task has.
        """
        logits = self._logits(output).float()
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
        count = torch.tensor(len(labels))
        prediction = logits.argmax(1)
        values = {
            "num_samples": count,
            # Refused by `compute`, on all ranks; the other sums are not read then.
            "undefined": num_undefined(logits),
            "top1": (prediction == labels).sum(),
            "nll": cross_entropy(logits, labels, reduction="none").double().sum(),
            "calibration": calibration_sums(logits.softmax(1), labels),
        }
        if self._has_top5:
            values["top5"] = (logits.topk(5, dim=1).indices == labels[:, None]).sum()
        if teacher is not None:
            teacher_logits = self._logits(teacher).float()[labeled]
            divergence = _divergence(teacher_logits.log_softmax(1), logits.log_softmax(1))
            values["num_compared"] = count
            values["teacher_undefined"] = num_undefined(teacher_logits)
            values["agreement"] = (prediction == teacher_logits.argmax(1)).sum()
            values["teacher_kl"] = divergence.double().sum()
        self._sums.add(values)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no labeled item was seen, on any rank, or if logits are NaN.
        """
        totals = self._sums.totals()
        num_samples = float(totals["num_samples"])
        if num_samples == 0:
            raise UserError(
                "there is nothing to evaluate: no labeled item; check data.root and the split"
            )
        for role, name in (("network", "undefined"), ("teacher", "teacher_undefined")):
            refuse_undefined(role, int(totals[name]), f"{num_samples:.0f} items")
        metrics = {"top1": float(totals["top1"]) / num_samples}
        if self._has_top5:
            metrics["top5"] = float(totals["top5"]) / num_samples
        metrics["nll"] = float(totals["nll"]) / num_samples
        metrics["ece"] = calibration_error(totals["calibration"])
        num_compared = float(totals["num_compared"])
        if num_compared:
            metrics["agreement"] = float(totals["agreement"]) / num_compared
            metrics["teacher_kl"] = float(totals["teacher_kl"]) / num_compared
        metrics["num_samples"] = num_samples
        return metrics


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
