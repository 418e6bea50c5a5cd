"""What residual distillation is made with: settings that fit, and a head built from one real batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Step, Teacher
from tutelage.errors import UserError
from tutelage.methods.budget import Budget
from tutelage.methods.residual_head import Joint, pooled
from tutelage.methods.residual_loss import DISTANCES
from tutelage.methods.residual_pair import ResidualPair
from tutelage.methods.residual_scheme import Scheme
from tutelage.similarity.gram import promote

CLOSE = 1e-3


def check_settings(pairs: object, budget: object, scheme: object, distance: str, resize: str | None) -> None:
    """Refuse what residual distillation cannot be made with.

    >>> check_settings({"stage3": "stage3"}, Budget(), Scheme(), "l1", None)
    Traceback (most recent call last):
    tutelage.errors.UserError: distance is one of ('mse', 'attention'), got 'l1'
    """
    if not isinstance(pairs, Mapping) or not pairs or resize not in (None, "bilinear"):
        raise UserError(f"give pairs such as {{'stage3': 'stage3'}}, and resize 'bilinear' or None, got {resize!r}")
    for name, value, kind in (("budget", budget, Budget), ("scheme", scheme, Scheme)):
        if not isinstance(value, kind):
            raise UserError(f"{name} is a tutelage.methods.{kind.__name__}, such as {kind()}, got {value!r}")
    if distance not in DISTANCES:
        raise UserError(f"distance is one of {DISTANCES}, got {distance!r}")


def join(pair: ResidualPair, rows: Sequence[Sequence[Tensor]], told: Sequence[Tensor], head: nn.Linear) -> None:
    """Give a pair its joint head.

    Args:
        pair: whose members get adapters.
        rows: per pair of taps the features of all members.
        told: the teacher's, whose widths the adapters have.
        head: the classifier of the joined features of the last pair.
    """
    pair.join(Joint([adapters(row, x.shape[1]) for row, x in zip(rows, told, strict=True)], head))


def adapters(raw: Sequence[Tensor], width: int) -> list[nn.Linear]:
    """Return an adapter to the teacher's width for every member; the assistants' start at zero, so that f̂ = f_S."""
    made = [nn.Linear(x.shape[1], width, device=x.device, dtype=promote(x).dtype) for x in raw]
    for adapter in made[1:]:
        nn.init.zeros_(adapter.weight)
        nn.init.zeros_(adapter.bias)
    return made


def first_head(teacher: Teacher, name: str | None, example: Step, told: Tensor) -> nn.Linear:
    """Return the head that training starts from, from the teacher's width to the student's classes.

    Args:
        teacher: whose classifier is copied.
        name: of that classifier, which must give the teacher's logits of the pooled tap; None makes a new one.
        example: one batch's outputs.
        told: the teacher's tap before the pooling.
    """
    theirs, mine = example.teacher.logits, example.student.logits
    if name is None:
        return nn.Linear(told.shape[1], mine.shape[1], device=told.device, dtype=promote(told).dtype)
    if theirs.shape[1] != mine.shape[1]:
        counts = f"the teacher has {theirs.shape[1]} classes, the student {mine.shape[1]}"
        raise UserError(f"{counts}; set classifier to None for a new one")
    found = teacher.module(name)
    check_classifiers([found], [told], theirs, "the teacher")
    head = copy.deepcopy(found)
    assert isinstance(head, nn.Linear)
    return head


def check_classifiers(classifiers: Sequence[nn.Module], raw: Sequence[Tensor], logits: Tensor, whose: str) -> None:
    """Make sure that classifiers on the pooled taps give a network's logits.

    Raises:
        UserError: one is not linear, is of another width, or what comes out differs; `whose` says of which tap.
    """
    total = torch.zeros_like(logits)
    for classifier, x in zip(classifiers, raw, strict=True):
        if not isinstance(classifier, nn.Linear):
            raise UserError(f"the classifier of {whose} is a {type(classifier).__name__}, but must be a linear layer")
        if classifier.in_features != x.shape[1]:
            raise UserError(
                f"the classifier of {whose} takes {classifier.in_features} features, but the tap gives {x.shape[1]}; "
                "let the last pair name the layers before the global pooling"
            )
        total = total + F.linear(pooled(x), classifier.weight, classifier.bias)
    if (total - logits).abs().max() > CLOSE * logits.abs().max().clamp(min=1.0):
        raise UserError(
            f"the classifier of {whose} does not see the tap's mean over positions; let the last pair name the layers "
            "before the global average pooling"
        )
