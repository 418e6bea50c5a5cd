"""Adapters and classifier of residual distillation: the members' features, joined.

    f_m = P_m F_m (a 1×1 convolution with bias),   f̂ = Σ_m f_m,   logits = W pool(f̂) + b

All of it is linear and commutes with the pooling. Member m's part of the logits is W P_m on its
pooled features z_m, with the bias W b_m, and b for the student. The head computes them in this
form, so that fusing it into the members' classifiers changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Step, Teacher
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._projection import pooled

TOLERANCE = 1e-3
"""How far, relative to the largest logit, a classifier may be from the network's logits."""


class JointHead(nn.Module):
    """The head in training: pooled features (N, C) of the members to logits.

    >>> head = JointHead([[nn.Linear(4, 8), nn.Linear(2, 8)]], nn.Linear(8, 3))
    >>> head([torch.ones(5, 4), torch.ones(5, 2)]).shape, head.fused_classifier(1)
    (torch.Size([5, 3]), Linear(in_features=2, out_features=3, bias=True))

    Args:
        adapters: for each pair of layers one linear layer per member, to the teacher's width. Those
            of the last pair feed the classifier, the others are there for their losses.
        classifier: from the teacher's width to the classes.
    """

    def __init__(self, adapters: Sequence[Sequence[nn.Linear]], classifier: nn.Linear) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(nn.ModuleList(row) for row in adapters)
        self.classifier = classifier

    def freeze_unused(self, student: bool, assistants: bool) -> None:
        """Freeze the adapters that no loss reaches: DDP waits for a gradient of all others.

        The last pair's always get one, since they feed the classifier.

        Args:
            student: whether the student's features are compared with the teacher's.
            assistants: whether the assistants' are.
        """
        for row in self.adapters[:-1]:
            for member, adapter in enumerate(row.children()):
                adapter.requires_grad_(assistants if member else student)

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the logits of all members together."""
        parts = [self.member_logits(member, vector) for member, vector in enumerate(vectors)]
        return torch.stack(parts).sum(0)

    def member_logits(self, member: int, vector: Tensor) -> Tensor:
        """Return one member's part of the logits; the student's (member 0) are logits themselves.

        Args:
            member: index of the member.
            vector: its pooled features (N, C).
        """
        weight, bias = self._fused(member)
        return F.linear(vector, weight, bias)

    def detached_logits(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the logits with the joined feature fixed: only the classifier gets a gradient."""
        features = [
            _project(vector, adapter)
            for vector, adapter in zip(vectors, self._row(-1), strict=True)
        ]
        joined = torch.stack(features).sum(0)
        logits: Tensor = self.classifier(joined.detach())
        return logits

    def fused_classifier(self, member: int) -> nn.Linear:
        """Return a classifier of its own for a member, which gives its part of the logits."""
        weight, bias = self._fused(member)
        classifier = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        classifier.weight = nn.Parameter(weight.detach().clone())
        classifier.bias = nn.Parameter(bias.detach().clone())
        return classifier

    def features(self, raw: Sequence[Tensor], pair: int = -1) -> list[Tensor]:
        """Return the members' features at the teacher's width, in float32.

        Args:
            raw: map (N, C, H, W) or vector (N, C) of each member.
            pair: index of the pair of layers.
        """
        with full_precision(raw[0].device):
            return [
                _project(promote(feature), adapter)
                for feature, adapter in zip(raw, self._row(pair), strict=True)
            ]

    def _fused(self, member: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias from a member's pooled features to its part of the logits."""
        adapter = self._row(-1)[member]
        classifier = self.classifier
        with full_precision(classifier.weight.device):
            # The classifier's own bias counts once: it is the student's.
            own_bias = classifier.bias if member == 0 else None
            bias = F.linear(adapter.bias, classifier.weight, own_bias)
            return classifier.weight @ adapter.weight, bias

    def _row(self, pair: int) -> list[nn.Linear]:
        row = self.adapters[pair]
        assert isinstance(row, nn.ModuleList)
        return [adapter for adapter in row if isinstance(adapter, nn.Linear)]


def make_adapters(raw: Sequence[Tensor], width: int) -> list[nn.Linear]:
    """Return a linear adapter to the teacher's width for every member.

    The assistants' start at zero, so that f̂ = f_S in the first step.

    Args:
        raw: map (N, C, H, W) or vector (N, C) of each member, the student's first.
        width: of the teacher's feature.
    """
    adapters = [
        nn.Linear(feature.shape[1], width, device=feature.device, dtype=promote(feature).dtype)
        for feature in raw
    ]
    for adapter in adapters[1:]:
        nn.init.zeros_(adapter.weight)
        nn.init.zeros_(adapter.bias)
    return adapters


def initial_classifier(
    teacher: Teacher, name: str | None, example: Step, teacher_feature: Tensor
) -> nn.Linear:
    """Return the head's classifier at the start: from the teacher's width to the student's classes.

    Args:
        teacher: whose classifier is copied.
        name: of that classifier; None makes a new one.
        example: one batch's outputs.
        teacher_feature: the teacher's last feature, before the pooling.

    Raises:
        UserError: If the teacher's classifier does not give the teacher's logits of that feature,
            or has other classes than the student.
    """
    num_classes = example.student.logits.shape[1]
    if name is None:
        return nn.Linear(
            teacher_feature.shape[1],
            num_classes,
            device=teacher_feature.device,
            dtype=promote(teacher_feature).dtype,
        )
    teacher_logits = example.teacher.logits
    if teacher_logits.shape[1] != num_classes:
        raise UserError(
            f"the teacher has {teacher_logits.shape[1]} classes, the student {num_classes}; "
            "set classifier to None for a new one"
        )
    classifier = teacher.module(name)
    check_classifiers([classifier], [teacher_feature], teacher_logits, "the teacher")
    copied = copy.deepcopy(classifier)
    assert isinstance(copied, nn.Linear)
    return copied


def check_classifiers(
    classifiers: Sequence[nn.Module], features: Sequence[Tensor], logits: Tensor, owner: str
) -> None:
    """Raise unless classifiers of pooled features add up to a network's logits.

    Args:
        classifiers: one for each member.
        features: map (N, C, H, W) or vector (N, C) of each member.
        logits: of the network.
        owner: of the classifiers, for messages.

    Raises:
        UserError: If one is not linear or has another width, or if the sum differs.
    """
    total = torch.zeros_like(logits)
    for classifier, feature in zip(classifiers, features, strict=True):
        if not isinstance(classifier, nn.Linear):
            raise UserError(
                f"the classifier of {owner} is a {type(classifier).__name__}, but must be a linear "
                "layer"
            )
        if classifier.in_features != feature.shape[1]:
            raise UserError(
                f"the classifier of {owner} takes {classifier.in_features} features, but the tap "
                f"gives {feature.shape[1]}; let the last pair name the layers before the global "
                "pooling"
            )
        total = total + F.linear(pooled(feature), classifier.weight, classifier.bias)
    if (total - logits).abs().max() > TOLERANCE * logits.abs().max().clamp(min=1.0):
        raise UserError(
            f"the classifier of {owner} does not see the tap's mean over positions; let the last "
            "pair name the layers before the global average pooling"
        )


def check_same_size(features: Sequence[Tensor], teacher: Tensor) -> None:
    """Raise if the members' maps have other sizes (H, W) than the teacher's."""
    if any(feature.shape[2:] != teacher.shape[2:] for feature in features):
        shapes = ", ".join(str(tuple(feature.shape)) for feature in features)
        raise UserError(
            f"the student and its assistants give {shapes}, the teacher {tuple(teacher.shape)}; "
            "pair layers whose maps have equal sizes"
        )


def _project(feature: Tensor, adapter: nn.Linear) -> Tensor:
    if feature.ndim == 4:
        return F.conv2d(feature, adapter.weight[:, :, None, None], adapter.bias)
    if feature.ndim != 2:
        raise UserError(
            "residual distillation needs maps (N, C, H, W) or vectors (N, C), got "
            f"{tuple(feature.shape)}"
        )
    return F.linear(feature, adapter.weight, adapter.bias)
