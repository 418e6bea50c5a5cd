"""Does a network do better than one that guesses? Tests that hold at any number of items.

They ask the task for its decisions, because a score alone does not tell: with class shares of 90
and 10 percent, one that always says the same is right in 90.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Evaluation, Metrics
from tutelage.core.distributed import gather_lists, is_distributed, sum_over_ranks
from tutelage.core.modes import eval_mode
from tutelage.core.taps import call

SIGNIFICANT = 0.05
POWER = 0.99


@runtime_checkable
class Decides(Protocol):
    """A task that can say which class a network decides for."""

    def decisions(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the decided and the true classes, both (N, ...); below 0 is no class."""
        ...

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the positional arguments of a network's forward."""
        ...


@dataclass(frozen=True)
class Decisions:
    """What a network decided on a part of the data, over all ranks.

    Attributes:
        decided: (C,) how often each class was decided for, where there is a true one.
        true: (C,) how often each class is the true one.
        right: (C,) how often both agree.
        shares: for each item the share of right decisions, NaN without a true class.
        is_dense: whether an item has many decisions, which depend on each other.
    """

    decided: Tensor
    true: Tensor
    right: Tensor
    shares: Tensor
    is_dense: bool

    @property
    def count(self) -> int:
        """The number of decisions that have a true class."""
        return int(self.true.sum())

    @property
    def agreement(self) -> float:
        """The share of right decisions."""
        return float(self.right.sum()) / max(self.count, 1)

    @property
    def agreement_by_chance(self) -> float:
        """The agreement of the same decisions, were they dealt to the items at random."""
        shares = self.decided / max(self.count, 1)
        return float((shares * self.true).sum()) / max(self.count, 1)


@torch.no_grad()
def decisions(
    model: nn.Module,
    task: Decides,
    parts: Mapping[str, Any],
    run: Evaluation,
    metrics: Metrics | None = None,
) -> Decisions:
    """Return what a network decides on a part.

    Args:
        model: the mode of every submodule is restored.
        task: reads the decisions.
        parts: the data by name.
        run: which part, and how to load it.
        metrics: updated on the way, so that one pass is enough for both.
    """
    counts = torch.zeros(3, 0, dtype=torch.float64)
    shares: list[float] = []
    is_dense = False
    with eval_mode(model):
        for batch in run.batches(parts[run.part]):
            output = call(model, task.inputs(batch))
            if metrics is not None:
                metrics.update(output, batch)
            decided, true = task.decisions(output, batch)
            is_dense = true.ndim > 1
            has_class = true >= 0
            right = (decided == true) & has_class
            # 0 / 0 is NaN: nothing to be right about.
            shares += (_by_item(right) / _by_item(has_class)).tolist()
            classes = (decided[has_class], true[has_class], true[right])
            counts = _added(counts, [values.cpu().bincount() for values in classes])
    return _over_ranks(counts, shares, is_dense)


def p_value_of_guessing(successes: int, trials: int, probability: float) -> float:
    """Return the probability of at least so many successes: the exact binomial test, one-sided.

    >>> p_value_of_guessing(8, 8, 0.5)
    0.00390625
    >>> round(p_value_of_guessing(90, 100, 0.9), 2)
    0.58

    Args:
        successes: number of right decisions.
        trials: number of decisions.
        probability: of a right one by chance.
    """
    from scipy.stats import binom  # takes a second to import

    return float(binom.sf(successes - 1, trials, probability))


def is_conclusive(trials: int, probability: float) -> bool:
    """Return whether there are enough trials to tell a decent network from one that guesses.

    A network halfway between chance and perfection must pass the test in 99 of 100 samples.
    Otherwise a failed test says more about the sample than about the network.

    >>> is_conclusive(8, 0.25), is_conclusive(32, 0.25)
    (False, True)

    Args:
        trials: number of decisions.
        probability: of a right one by chance.
    """
    from scipy.stats import binom

    needed = binom.isf(SIGNIFICANT, trials, probability) + 1
    return bool(binom.sf(needed - 1, trials, (1 + probability) / 2) >= POWER)


def p_value_of_gain(own: Tensor, other: Tensor) -> float:
    """Return the p-value that paired results only happen to be better: the exact sign test.

    Items on which both are equally good tell nothing, as in McNemar's test.

    >>> p_value_of_gain(torch.tensor([0.0, 0, 0, 1, 1]), torch.tensor([1.0, 1, 1, 1, 1]))
    0.125

    Args:
        own: (N,) how good one is by item; NaN is left out.
        other: (N,) how good the other one is, on the same items.
    """
    better = int((other > own).sum())
    worse = int((other < own).sum())
    return p_value_of_guessing(better, better + worse, 0.5)


def refusal_level(
    chance: float, num_samples: int, min_gain: float = 0.1, *, errors: float = 3
) -> float:
    """Return the score below which a network may be one that guesses; its decisions are not known.

    It is chance plus some standard errors, and at least `min_gain` of the way from chance to 1; a
    perfect score is never below it. A network is refused below one error, and doubted below three.

    >>> round(refusal_level(0.1, 100), 3)
    0.19
    >>> refusal_level(0.5, 8)
    1.0
    """
    standard_error = math.sqrt(chance * (1 - chance) / max(num_samples, 1))
    return min(1.0, chance + max(min_gain * (1 - chance), errors * standard_error))


def _by_item(mask: Tensor) -> Tensor:
    return mask.reshape(len(mask), -1).sum(1)


def _added(counts: Tensor, new: list[Tensor]) -> Tensor:
    """Return counts by class with those of a batch, which may know further classes."""
    width = max(counts.shape[1], *(len(row) for row in new))
    total = torch.zeros(3, width, dtype=torch.float64)
    total[:, : counts.shape[1]] += counts
    for row, values in zip(total, new, strict=True):
        row[: len(values)] += values
    return total


def _over_ranks(counts: Tensor, shares: list[float], is_dense: bool) -> Decisions:
    if is_distributed():
        shares, widths, dense = gather_lists([shares, [counts.shape[1]], [is_dense]])
        padded = torch.zeros(3, max(widths), dtype=torch.float64)
        padded[:, : counts.shape[1]] = counts
        counts = sum_over_ranks(padded)
        is_dense = any(dense)
    decided, true, right = counts
    return Decisions(decided, true, right, torch.tensor(shares), is_dense)
