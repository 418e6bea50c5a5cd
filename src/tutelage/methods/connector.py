"""From a student's feature into a teacher's classifier: a trainable connector, and the classifier, found by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core import Teacher
from tutelage.core.eval_mode import eval_mode
from tutelage.errors import UserError

USUAL = ("classifier", "fc", "head", "head.fc", "heads", "classifier.1")
TOLERANCE = 1e-4


class Head(NamedTuple):
    """A teacher's frozen classifier; a tuple holds it, so that no method trains, saves or moves it.

    Attributes:
        module: maps a feature to logits.
        maps: it takes maps and pools them itself.
    """

    module: nn.Module
    maps: bool

    def __call__(self, feature: Tensor) -> Tensor:
        """Return logits (N, K) of a feature (N, C, H, W) or (N, C); gradients pass through, dropout is off."""
        if not self.maps:
            feature = pooled(feature)
        elif feature.ndim == 2:
            feature = feature[:, :, None, None]
        logits: Tensor = self.module.eval()(feature)
        return logits


def connector(student: Tensor, teacher: Tensor, relu: bool | None = None) -> nn.Sequential:
    """Return an untrained map from the student's feature to the teacher's width: 1×1 convolution, batch norm, ReLU.

    For a vector (N, C) the convolution is a linear layer.

    >>> [type(part).__name__ for part in connector(torch.zeros(2, 4), torch.tensor([[1.0, -1.0]]))]
    ['Linear', 'BatchNorm1d']

    Args:
        student, teacher: features (N, C, H, W) or (N, C).
        relu: end in a ReLU; None does if no value of the teacher's feature is negative.
    """
    inputs, outputs = student.shape[1], teacher.shape[1]
    maps = student.ndim == 4
    first = nn.Conv2d(inputs, outputs, 1, bias=False) if maps else nn.Linear(inputs, outputs, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    parts = [first, nn.BatchNorm2d(outputs) if maps else nn.BatchNorm1d(outputs)]
    ends = bool((teacher >= 0).all()) if relu is None else relu
    return nn.Sequential(*parts, *([nn.ReLU()] if ends else []))


def find_head(teacher: Teacher, name: str | None, layer: str, feature: Tensor, logits: Tensor) -> Head:
    """Return the classifier that leads from a teacher's feature to its logits, of the whole network or after pooling.

    Args:
        teacher: has the classifier as a submodule.
        name: of the submodule; None tries the usual ones.
        layer: name of the feature, for messages.
        feature, logits: of one batch.

    Raises:
        UserError: there is no such submodule, or none gives the teacher's logits from this feature.
    """
    found = _modules(teacher, USUAL if name is None else (name,), asked=name is not None)
    misses: dict[str, float] = {}
    for tried, module in found.items():
        for maps in (False, True) if feature.ndim == 4 else (False,):
            head = Head(module, maps)
            misses[tried] = min(_miss(head, feature, logits), misses.get(tried, torch.inf))
            if misses[tried] <= TOLERANCE:
                return head
    errors = {tried: f"{miss:.2g}" for tried, miss in misses.items() if miss < torch.inf} or "the shapes do not fit"
    raise UserError(
        f"the teacher's layer {layer!r} {tuple(feature.shape)} and its classifier {list(found)} do not give its logits "
        f"(relative error: {errors}); tap what the classifier gets, or the map before the pooling, after the last norm "
        "and activation, or name another classifier"
    )


def pooled(feature: Tensor) -> Tensor:
    """Return the mean (N, C) over the positions of a map (N, C, H, W); a vector stays.

    >>> pooled(torch.ones(2, 3, 5, 4)).shape
    torch.Size([2, 3])
    """
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def check_layer(feature: Tensor, whose: str, name: str) -> None:
    """Refuse tokens, and maps that look as if their channels came last.

    Raises:
        UserError: the feature is neither (N, C, H, W) nor (N, C).
    """
    shape = tuple(feature.shape)
    if feature.ndim not in (2, 4) or (feature.ndim == 4 and shape[1] == shape[2] != shape[3]):
        raise UserError(
            f"the {whose}'s layer {name!r} gives {shape}; tap a map (N, C, H, W) or a vector (N, C), in a network of "
            "tokens what its classifier gets"
        )


def _modules(teacher: Teacher, names: Sequence[str], asked: bool) -> dict[str, nn.Module]:
    found = {}
    for name in names:
        try:
            found[name] = teacher.module(name)
        except UserError:
            if asked:
                raise
    if not found:
        raise UserError(f"the teacher has none of the classifiers {list(names)}; give its name as classifier")
    return found


@torch.no_grad()
def _miss(head: Head, feature: Tensor, logits: Tensor) -> float:
    with eval_mode(head.module):
        try:
            got: object = head(feature)
        except Exception:  # whatever a module of another library raises for a shape that it does not take
            return torch.inf
    if not isinstance(got, Tensor) or got.shape != logits.shape:
        return torch.inf
    return float((got.float() - logits.float()).norm() / logits.float().norm().clamp(min=1e-12))
