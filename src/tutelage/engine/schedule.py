"""Learning-rate schedules as one pure function of the step: nothing to save, nothing to step twice."""

from __future__ import annotations

import math

from tutelage.engine.recipe import Training


def lr_factor(step: int, steps_per_epoch: int, train: Training) -> float:
    """Return the factor of the base learning rate at an optimiser step.

    >>> lr_factor(0, 10, Training(epochs=2, schedule="constant", warmup_epochs=0.5))
    0.2
    >>> lr_factor(10, 10, Training(epochs=2, schedule="cosine"))
    0.5
    >>> round(lr_factor(15, 10, Training(epochs=2, schedule="step", milestones=[1])), 3)
    0.1
    """
    warmup = round(train.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in train.milestones)
        return math.pow(train.gamma, passed)
    total = train.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
