"""Is this an image of a class that nobody taught? Scores of strangeness, and how well they tell outliers apart.

Every score is large for outliers. Source of the one-vs-all functions: the OpenMatch baseline in
jingyang2017/SRD_ossl@d295cd8 (MIT), after K. Saito, D. Kim, K. Saenko, OpenMatch, NeurIPS 2021, arXiv 2105.14148.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Metrics
from tutelage.errors import UserError
from tutelage.similarity.gram import promote

FIRST_KIND = -101
TINY = 1e-8  # within logarithms, official
ACCEPTED = 0.95


def softmax_score(logits: Tensor) -> Tensor:
    """Return log((1 - p) / p) of the most likely class's probability p: the order of 1 - p, without its rounding to 0.

    >>> softmax_score(torch.tensor([[0.0, 0.0], [0.0, 50.0], [0.0, 60.0]])).tolist()
    [0.0, -50.0, -60.0]

    Args:
        logits: (N, C), C ≥ 2.

    Returns:
        (N,).
    """
    largest, index = logits.max(1, keepdim=True)
    return (logits.scatter(1, index, -torch.inf).logsumexp(1, keepdim=True) - largest).squeeze(1)


def energy_score(logits: Tensor) -> Tensor:
    """Return the energy -log Σ_c exp(logit_c), (N,), of logits (N, C): W. Liu et al., NeurIPS 2020, arXiv 2010.03759.

    >>> energy_score(torch.tensor([[5.0, -50.0]])).tolist()
    [-5.0]
    """
    return -logits.logsumexp(1)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": softmax_score, "energy": energy_score}


def unknown_score(pairs: Tensor, logits: Tensor) -> Tensor:
    """Return the probability (N,) of "outlier" that the one-vs-all head gives to the most likely class.

    >>> unknown_score(torch.tensor([[0.0, 0.0, 0.0, 9.0]]), torch.tensor([[3.0, 1.0]])).tolist()
    [0.5]

    Args:
        pairs: (N, 2 K), read as (N, 2, K): outlier and inlier for each class.
        logits: (N, K) of the classifier.
    """
    return _pairs(pairs)[:, 0].gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


def one_vs_all_loss(pairs: Tensor, labels: Tensor) -> Tensor:
    """Return the one-vs-all loss of OpenMatch: inlier for the label, outlier for the hardest other class; batch means.

    >>> round(one_vs_all_loss(torch.zeros(1, 6), torch.tensor([2])).item(), 4)
    1.3863

    Args:
        pairs: (N, 2 K), see `unknown_score`.
        labels: (N,), classes.
    """
    outlier, inlier = _pairs(pairs).unbind(1)
    mine = torch.zeros_like(inlier, dtype=torch.bool).scatter(1, labels.unsqueeze(1), True)
    hardest = (-torch.log(outlier + TINY)).masked_fill(mine, -torch.inf).amax(1)
    return -torch.log(inlier[mine] + TINY).mean() + hardest.mean()


def one_vs_all_entropy(pairs: Tensor) -> Tensor:
    """Return the entropy in nats of the one-vs-all decisions (N, 2 K), the mean over images and classes.

    >>> round(one_vs_all_entropy(torch.zeros(1, 6)).item(), 4)
    0.6931
    """
    p = _pairs(pairs)
    return -(p * torch.log(p + TINY)).sum(1).mean()


def auroc(scores: Tensor, outliers: Tensor) -> float:
    """Return the chance that an outlier has a larger score than a known image; ties count half.

    >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True]))
    0.875

    Args:
        scores: (N,), of any size; nothing is squashed to [0, 1].
        outliers: (N,), bool.

    Raises:
        UserError: one of the two kinds is missing.
    """
    positive = _counts(outliers)
    _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts - 1).double() / 2)[place]
    above = ranks[outliers].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(scores) - positive)))


def accepted_outliers(scores: Tensor, outliers: Tensor, accepted: float = ACCEPTED) -> float:
    """Return the share of outliers among those let in, where the bar lets in this share of the known images (FPR95).

    >>> accepted_outliers(torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([False, True, False, True]))
    0.5

    Args:
        scores, outliers: as in `auroc`.
        accepted: share of the known images.
    """
    _counts(outliers)
    known = scores[~outliers].sort().values
    bar = known[math.ceil(accepted * len(known)) - 1]
    return float((scores[outliers] <= bar).double().mean())


class OpenSetMetrics(Metrics):
    """The metrics of a classifier, and how well it and its teacher tell outliers from known images.

    For every kind of outlier there are `auroc_<kind>` and `fpr95_<kind>` (share of outliers let in by the bar that
    lets in 95 % of the known images), and with a teacher the same under `teacher_`.

    Args:
        known: metrics of the images that have a label.
        logits: reads (N, C) logits from what a network gave.
        labels: reads the labels of a batch; ≥ 0 is known, -101 an outlier of the first kind, -102 of the second, ….
        kinds: names of the kinds.
        score: logits → strangeness.
    """

    def __init__(
        self,
        known: Metrics,
        logits: Callable[[Any], Tensor],
        labels: Callable[[Any], Tensor],
        kinds: Sequence[str],
        score: Callable[[Tensor], Tensor],
    ) -> None:
        from torchmetrics import CatMetric  # takes seconds to import, and only evaluation needs it

        self._known, self._logits, self._labels, self._kinds, self._score = known, logits, labels, kinds, score
        self._marks = CatMetric(nan_strategy="disable")
        self._scores = {"": CatMetric(nan_strategy="disable"), "teacher_": CatMetric(nan_strategy="disable")}

    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch."""
        self._known.update(out, batch, teacher)
        marks = self._labels(batch)
        for metric in (self._marks, *self._scores.values()):
            metric.to(marks.device)
        self._marks.update(marks.clamp(max=0))
        self._scores[""].update(self._score(self._logits(out).float()))
        if teacher is not None:
            self._scores["teacher_"].update(self._score(self._logits(teacher).float()))

    def compute(self) -> dict[str, float]:
        """Return the figures by name; a kind of which there is no image, or only such images, has none."""
        figures = self._known.compute()
        marks = self._marks.compute()
        for whose, metric in self._scores.items():
            if metric.update_called:
                figures |= self._tell_apart(whose, metric.compute(), marks)
        return figures

    def _tell_apart(self, whose: str, scores: Tensor, marks: Tensor) -> dict[str, float]:
        figures = {}
        for number, kind in enumerate(self._kinds):
            strange = marks == FIRST_KIND - number
            asked = strange | (marks == 0)
            if strange.any() and not strange.all():
                given = scores[asked], strange[asked]
                figures[f"{whose}auroc_{kind}"] = auroc(*given)
                figures[f"{whose}fpr95_{kind}"] = accepted_outliers(*given)
        return figures


def _pairs(pairs: Tensor) -> Tensor:
    if pairs.ndim != 2 or pairs.shape[1] % 2:
        raise UserError(f"a one-vs-all head gives (N, 2 K), got {tuple(pairs.shape)}; flatten (N, 2, K) to rows")
    return promote(pairs).view(len(pairs), 2, -1).softmax(1)


def _counts(outliers: Tensor) -> int:
    if outliers.dtype != torch.bool:
        raise UserError(f"outliers is a mask of torch.bool, got {outliers.dtype}; compare the labels with 0")
    positive = int(outliers.sum())
    if not 0 < positive < len(outliers):
        raise UserError(f"{positive} of {len(outliers)} images are outliers; give both outliers and known images")
    return positive
