"""A teacher's frozen classifier, found by name and by giving the teacher's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.core.frozen import Unregistered
from tutelage.core.modes import eval_mode
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._projection import pooled

COMMON_NAMES = ("classifier", "fc", "head", "head.fc", "heads", "classifier.1")
"""Names of classifiers in torchvision, timm, Hugging Face and `tutelage.models`."""

TOLERANCE = 1e-4
"""The relative error up to which a classifier gives the teacher's logits."""


class TeacherHead:
    """A teacher's frozen classifier, with the pooling before it.

    Args:
        classifier: the submodule; it is neither trained nor saved nor moved by the method.
        takes_maps: it takes maps and pools them itself.
        takes_one_position: it takes maps of one position and pools nothing.
    """

    def __init__(
        self, classifier: nn.Module, *, takes_maps: bool, takes_one_position: bool = False
    ) -> None:
        self.classifier = Unregistered(classifier)
        self.takes_maps = takes_maps
        self.takes_one_position = takes_one_position

    def __call__(self, feature: Tensor) -> Tensor:
        """Return logits (N, K); gradients pass through, dropout is off.

        Args:
            feature: map (N, C, H, W) or vector (N, C).
        """
        classifier = self.classifier.module
        weight = next(classifier.parameters(), None)
        if weight is not None:
            feature = feature.to(weight.dtype)
        if self.takes_one_position or not self.takes_maps:
            feature = pooled(feature)
        if self.takes_maps and feature.ndim == 2:
            feature = feature[:, :, None, None]
        # In eval mode whatever `.train()` was called on: dropout would change the teacher's logits.
        logits: Tensor = classifier.eval()(feature)
        return logits


def find_head(
    teacher: Teacher, name: str | None, layer: str, feature: Tensor, logits: Tensor
) -> TeacherHead:
    """Return the classifier that leads from a teacher's feature to its logits.

    It gets the whole feature or, if that does not fit, its mean over positions.

    Args:
        teacher: has the classifier as a submodule.
        name: of the submodule; None tries the common names.
        layer: name of the feature, for messages.
        feature: of one batch.
        logits: of the same batch.

    Raises:
        UserError: If there is no such submodule, or if none gives the teacher's logits.
    """
    if name is not None:
        modules = {name: teacher.module(name)}
    else:
        modules = _modules_of_common_names(teacher)
    errors: dict[str, float] = {}
    for candidate, module in modules.items():
        for takes_maps in (False, True) if feature.ndim == 4 else (False,):
            one_position = takes_maps and feature.shape[2:] == (1, 1)
            head = TeacherHead(module, takes_maps=takes_maps, takes_one_position=one_position)
            error = _relative_error(head, feature, logits)
            if error <= TOLERANCE:
                return head
            errors[candidate] = min(error, errors.get(candidate, torch.inf))
    finite = {candidate: f"{error:.2g}" for candidate, error in errors.items() if error < torch.inf}
    raise UserError(
        f"the teacher's layer {layer!r} {tuple(feature.shape)} and its classifier {list(modules)} "
        f"do not give its logits (relative error: {finite or 'the shapes do not fit'}); tap what "
        "the classifier gets, or the map before the pooling, after the last norm and activation, "
        "or name another classifier"
    )


def _modules_of_common_names(teacher: Teacher) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    for name in COMMON_NAMES:
        try:
            modules[name] = teacher.module(name)
        except UserError:  # the teacher calls it otherwise
            continue
    if not modules:
        raise UserError(
            f"the teacher has none of the classifiers {list(COMMON_NAMES)}; give its name as "
            "classifier"
        )
    return modules


def _shapes_fit(head: TeacherHead, feature: Tensor, logits: Tensor) -> bool:
    """Return False if the shapes rule a classifier out; only a linear layer says so beforehand."""
    classifier = head.classifier.module
    if not isinstance(classifier, nn.Linear):
        return True
    widths = (classifier.in_features, classifier.out_features)
    return not head.takes_maps and widths == (feature.shape[1], logits.shape[1])


@torch.no_grad()
def _relative_error(head: TeacherHead, feature: Tensor, logits: Tensor) -> float:
    """Return how far a head is from the teacher's logits; infinity if it does not fit."""
    if not _shapes_fit(head, feature, logits):
        return torch.inf
    with eval_mode(head.classifier.module):
        try:
            result: object = head(feature)
        except Exception:
            # Any module can be a classifier, and only calling it tells which shapes it takes. Other
            # libraries raise what they like for a wrong one: RuntimeError, ValueError, an assert.
            return torch.inf
    if not isinstance(result, Tensor) or result.shape != logits.shape:
        return torch.inf
    difference = result.float() - logits.float()
    return float(difference.norm() / logits.float().norm().clamp(min=1e-12))
