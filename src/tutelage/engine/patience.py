"""When a run ends before its last epoch, because validation has stopped getting better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.recipes.config import TrainConfig


def is_out_of_patience(best: Mapping[str, Any], epochs: float, train: TrainConfig) -> bool:
    """Return whether the last `train.patience` validations were no better than the best one.

    It is a pure function of what a checkpoint holds, so that a resumed run ends where it would.

    >>> train = TrainConfig(eval_every=5, patience=2)
    >>> [is_out_of_patience({"epoch": 20}, epochs, train) for epochs in (29, 30)]
    [False, True]

    Args:
        best: the epoch of the best validation; empty before the first one.
        epochs: how many are trained, also in parts.
        train: says how often to validate, and how long to wait.
    """
    if train.patience is None or not best:
        return False
    since_best = int(epochs) // train.eval_every - int(best["epoch"]) // train.eval_every
    return since_best >= train.patience
