"""Outlier scores, and how well they tell images of unknown classes from known ones.

Every score is large for outliers. Source of the one-vs-all functions: the OpenMatch baseline in
jingyang2017/SRD_ossl@d295cd8 (MIT), after K. Saito, D. Kim, K. Saenko, OpenMatch, NeurIPS 2021,
arXiv 2105.14148.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.core.distributed import gather_lists
from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.tasks._checks import refuse_undefined

Score = Literal["softmax", "energy"]
FIRST_OUTLIER = -101  # label of outliers of the first kind; -102 is the second, and so on
EPS = 1e-8  # within logarithms, as in the official code


def softmax_score(logits: Tensor) -> Tensor:
    """Return log((1 - p) / p), with p the probability of the most likely class.

    It orders images as 1 - p does, but does not round to 0 where p is close to 1.

    >>> softmax_score(torch.tensor([[0.0, 0.0], [0.0, 50.0], [0.0, 60.0]])).tolist()
    [0.0, -50.0, -60.0]

    Args:
        logits: (N, C), C ≥ 2.

    Returns:
        (N,).
    """
    largest, index = logits.max(1, keepdim=True)
    others = logits.scatter(1, index, -torch.inf)
    return (others.logsumexp(1, keepdim=True) - largest).squeeze(1)


def energy_score(logits: Tensor) -> Tensor:
    """Return the energy -log Σ_c exp(logit_c): W. Liu et al., NeurIPS 2020, arXiv 2010.03759.

    >>> energy_score(torch.tensor([[5.0, -50.0]])).tolist()
    [-5.0]

    Args:
        logits: (N, C).

    Returns:
        (N,).
    """
    return -logits.logsumexp(1)


SCORES: Mapping[Score, Callable[[Tensor], Tensor]] = {
    "softmax": softmax_score,
    "energy": energy_score,
}


def unknown_score(pairs: Tensor, logits: Tensor) -> Tensor:
    """Return the probability of "outlier" that a one-vs-all head gives to the most likely class.

    >>> unknown_score(torch.tensor([[0.0, 0.0, 0.0, 9.0]]), torch.tensor([[3.0, 1.0]])).tolist()
    [0.5]

    Args:
        pairs: logits (N, 2 K) of the head, read as (N, 2, K): outlier and inlier for each class.
        logits: (N, K) of the classifier.

    Returns:
        (N,).
    """
    outlier = _one_vs_all(pairs)[:, 0]
    return outlier.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


def one_vs_all_loss(pairs: Tensor, labels: Tensor) -> Tensor:
    """Return the one-vs-all loss of OpenMatch, the mean over the batch.

    It asks for an inlier at the label, and for an outlier at the hardest of the other classes.

    >>> round(one_vs_all_loss(torch.zeros(1, 6), torch.tensor([2])).item(), 4)
    1.3863

    Args:
        pairs: (N, 2 K), see `unknown_score`.
        labels: (N,), classes.
    """
    outlier, inlier = _one_vs_all(pairs).unbind(1)
    is_label = torch.zeros_like(inlier, dtype=torch.bool).scatter(1, labels.unsqueeze(1), True)
    hardest = (-torch.log(outlier + EPS)).masked_fill(is_label, -torch.inf).amax(1)
    return -torch.log(inlier[is_label] + EPS).mean() + hardest.mean()


def one_vs_all_entropy(pairs: Tensor) -> Tensor:
    """Return the entropy in nats of the one-vs-all decisions, the mean over images and classes.

    >>> round(one_vs_all_entropy(torch.zeros(1, 6)).item(), 4)
    0.6931

    Args:
        pairs: (N, 2 K), see `unknown_score`.
    """
    p = _one_vs_all(pairs)
    return -(p * torch.log(p + EPS)).sum(1).mean()


def auroc(scores: Tensor, outliers: Tensor) -> float:
    """Return the probability that an outlier has a larger score than a known image.

    >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True]))
    0.875

    Args:
        scores: (N,), of any size; nothing is squashed to [0, 1]. Ties count half.
        outliers: (N,), bool.

    Raises:
        UserError: If there are no outliers, or nothing else, or if a score is NaN.
    """
    _refuse_nan(scores)
    num_outliers = _count_outliers(outliers)
    _, index, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    # Equal scores share the mean of their ranks (Mann-Whitney U).
    ranks = (counts.cumsum(0).double() - (counts - 1).double() / 2)[index]
    wins = ranks[outliers].sum() - num_outliers * (num_outliers + 1) / 2
    return float(wins / (num_outliers * (len(scores) - num_outliers)))


def accepted_outliers(scores: Tensor, outliers: Tensor, accepted: float = 0.95) -> float:
    """Return the share of outliers below the threshold that accepts a share of the known images.

    With 95 % it is FPR95.

    >>> scores, outliers = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 1, 0, 1]).bool()
    >>> accepted_outliers(scores, outliers)
    0.5

    Args:
        scores: as in `auroc`.
        outliers: as in `auroc`.
        accepted: share of the known images, above 0 and at most 1.

    Raises:
        UserError: If there are no outliers, or nothing else, if a score is NaN, or if `accepted` is
            out of range.
    """
    is_number = isinstance(accepted, (int, float)) and not isinstance(accepted, bool)
    if not is_number or not 0 < accepted <= 1:
        raise UserError(
            f"accepted is the share of the known images that pass, above 0 and at most 1, got "
            f"{accepted!r}"
        )
    _refuse_nan(scores)
    _count_outliers(outliers)
    known = scores[~outliers].sort().values
    threshold = known[math.ceil(accepted * len(known)) - 1]
    return float((scores[outliers] <= threshold).double().mean())


class OpenSetMetrics(Metrics):
    """The metrics of a classifier, and how well it and its teacher tell outliers from known images.

    For every kind of outlier there are `auroc_<kind>` and `fpr95_<kind>`, the share of outliers
    below the threshold that accepts 95 % of the known images; with a teacher, the same of the
    teacher under `teacher_auroc_<kind>` and `teacher_fpr95_<kind>`.

    Args:
        known: metrics of the images that have a label.
        logits: reads logits (N, C) from a network's output.
        kinds: names of the outliers with the labels -101, -102, ....
        score: from logits (N, C) to outlier scores (N,).
    """

    def __init__(
        self,
        known: Metrics,
        logits: Callable[[Any], Tensor],
        kinds: Sequence[str],
        score: Callable[[Tensor], Tensor],
    ) -> None:
        self._known = known
        self._logits = logits
        self._kinds = kinds
        self._score = score
        # An area under a curve needs all scores; there is no sum to add them up.
        self._labels: list[Tensor] = []
        self._student_scores: list[Tensor] = []
        self._teacher_scores: list[Tensor] = []

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        self._known.update(output, batch, teacher)
        # Only the kind of an image is needed: 0 for all known classes, or a negative label.
        self._labels.append(batch.labels.clamp(max=0))
        self._student_scores.append(self._scores(output))
        if teacher is not None:
            self._teacher_scores.append(self._scores(teacher))

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        A kind of outlier has none if there is no image of it, or no known image.

        Raises:
            UserError: If there is no known image, or if a network's logits are NaN.
        """
        metrics = self._known.compute()
        parts = (self._labels, self._student_scores, self._teacher_scores)
        labels, student, teacher = map(
            torch.tensor, gather_lists([_joined(part) for part in parts])
        )
        if len(student):
            metrics |= self._separation("", student, labels)
        if len(teacher):
            metrics |= self._separation("teacher_", teacher, labels)
        return metrics

    def _scores(self, output: Any) -> Tensor:
        """Return the outlier scores, NaN where logits have no softmax."""
        logits = self._logits(output).float()
        return self._score(logits).where(logits.amax(1).isfinite(), math.nan)

    def _separation(self, prefix: str, scores: Tensor, labels: Tensor) -> dict[str, float]:
        role = "teacher" if prefix else "network"
        refuse_undefined(role, int(scores.isnan().sum()), f"{len(scores)} images")
        metrics = {}
        known = labels == 0
        for number, kind in enumerate(self._kinds):
            outliers = labels == FIRST_OUTLIER - number
            if outliers.any() and known.any():
                subset = known | outliers
                subset_scores = scores[subset]
                subset_outliers = outliers[subset]
                metrics[f"{prefix}auroc_{kind}"] = auroc(subset_scores, subset_outliers)
                metrics[f"{prefix}fpr95_{kind}"] = accepted_outliers(subset_scores, subset_outliers)
        return metrics


def _joined(parts: list[Tensor]) -> list[Any]:
    """Return the numbers of one-dimensional tensors; those of float32 stay what they are."""
    return torch.cat(parts).tolist() if parts else []


def _one_vs_all(pairs: Tensor) -> Tensor:
    """Return the probabilities (N, 2, K) of a one-vs-all head."""
    if pairs.ndim != 2 or pairs.shape[1] % 2:
        raise UserError(
            f"a one-vs-all head gives (N, 2 K), got {tuple(pairs.shape)}; flatten (N, 2, K) to rows"
        )
    return promote(pairs).view(len(pairs), 2, -1).softmax(1)


def _refuse_nan(scores: Tensor) -> None:
    count = int(scores.isnan().sum())
    if count:
        raise UserError(
            f"{count} of {len(scores)} outlier scores are NaN and have no rank; check the logits "
            "that they are from"
        )


def _count_outliers(outliers: Tensor) -> int:
    if outliers.dtype != torch.bool:
        raise UserError(
            f"outliers is a mask of torch.bool, got {outliers.dtype}; compare the labels with 0"
        )
    count = int(outliers.sum())
    if not 0 < count < len(outliers):
        raise UserError(
            f"{count} of {len(outliers)} images are outliers; give both outliers and known images"
        )
    return count
