"""A student and its assistants as one network, whose logits are the sum of theirs.

In training the members give pooled features, and a joint head the logits (`residual_head.py`). At ship the head is
folded into a classifier for each member, and no adapter is left: the same logits, from the same operations.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.core.tap import untapped
from tutelage.errors import UserError
from tutelage.methods.narrow import classifier_of
from tutelage.methods.residual_head import Joint


class ResidualPair(nn.Module):
    """One network with one forward: images → logits.

    >>> member = lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> ResidualPair(member(), [member()])(torch.ones(2, 1, 2, 2)).shape
    torch.Size([2, 3])

    Args:
        student: a network that ends in a linear classifier.
        assistants: networks of the same structure.
    """

    def __init__(self, student: nn.Module, assistants: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.assistants = nn.ModuleList(assistants)
        self.head: nn.Module = Sum()
        self._classifier = classifier_of(student)
        stated = normalization(student)
        if stated is not None:  # once, around all of them
            normalize_inputs(self, *stated)
            for member in self.members:
                normalize_inputs(member, [0.0] * len(stated[0]), [1.0] * len(stated[0]))

    @property
    def members(self) -> list[nn.Module]:
        """The student and the assistants."""
        return [self.student, *self.assistants]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head([member(images) for member in self.members])
        return logits

    def joint(self) -> Joint:
        """Return the head in training."""
        if not isinstance(self.head, Joint):
            raise UserError("the adapters are not built yet; call distiller.setup(batch) before the first step")
        return self.head

    def join(self, head: Joint) -> None:
        """Let the members give their pooled features, and this head the logits."""
        for member in self.members:
            self._put(member, nn.Identity())
        self.head = head

    def fold(self) -> ResidualPair:
        """Give every member a classifier of its own, of the same logits, in place; does nothing where that is so."""
        if isinstance(self.head, Joint):
            for index, member in enumerate(self.members):
                self._put(member, self.head.linear(index))
            self.head = Sum()
        return self

    @property
    def classifiers(self) -> list[nn.Module]:
        """The members' last layers: linear ones, or identities while the head is joint."""
        return [member.get_submodule(self._classifier) for member in self.members]

    def student_only(self) -> nn.Module:
        """Return the student without its assistants, as a network of its own; this one stays as it is."""
        alone = copy.deepcopy(self).fold()
        untapped(alone)
        stated = normalization(self)
        return alone.student if stated is None else normalize_inputs(alone.student, *stated)

    def _put(self, member: nn.Module, classifier: nn.Module) -> None:
        parent, _, name = self._classifier.rpartition(".")
        member.get_submodule(parent).register_module(name, classifier)


class Sum(nn.Module):
    """The shipped head."""

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the sum of the members' logits."""
        return torch.stack(list(outputs)).sum(0)
