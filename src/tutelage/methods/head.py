"""A teacher's frozen classifier: found by name, and by giving the teacher's logits of the tapped feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core import Teacher
from tutelage.core.eval_mode import eval_mode
from tutelage.errors import UserError
from tutelage.methods.connector import pooled

USUAL = ("classifier", "fc", "head", "head.fc", "heads", "classifier.1")
TOLERANCE = 1e-4


class Head(NamedTuple):
    """A teacher's frozen classifier; a tuple holds it, so that no method trains, saves or moves it.

    Attributes:
        module: maps a feature to logits.
        maps: it takes maps and pools them itself.
        single: it takes maps of one position, and pools nothing.
    """

    module: nn.Module
    maps: bool
    single: bool = False

    def __call__(self, feature: Tensor) -> Tensor:
        """Return logits (N, K) of a feature (N, C, H, W) or (N, C); gradients pass through, dropout is off."""
        weight = next(self.module.parameters(), None)
        feature = feature if weight is None else feature.to(weight.dtype)
        if not self.maps or self.single:
            feature = pooled(feature)
        if self.maps and feature.ndim == 2:
            feature = feature[:, :, None, None]
        logits: Tensor = self.module.eval()(feature)
        return logits


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
            head = Head(module, maps, single=maps and feature.shape[2:] == (1, 1))
            misses[tried] = min(_miss(head, feature, logits), misses.get(tried, torch.inf))
            if misses[tried] <= TOLERANCE:
                return head
    errors = {tried: f"{miss:.2g}" for tried, miss in misses.items() if miss < torch.inf} or "the shapes do not fit"
    raise UserError(
        f"the teacher's layer {layer!r} {tuple(feature.shape)} and its classifier {list(found)} do not give its logits "
        f"(relative error: {errors}); tap what the classifier gets, or the map before the pooling, after the last norm "
        "and activation, or name another classifier"
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
