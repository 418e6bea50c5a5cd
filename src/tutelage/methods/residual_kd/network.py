"""A student and its assistants as one network, which adds up their logits.

In training the members give pooled features, and a joint head the logits (`joint_head.py`). For
deployment the head is fused into a classifier for each member. No adapter is left, and the logits
are the same, from the same operations.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.core.taps import remove_taps
from tutelage.errors import UserError
from tutelage.methods.residual_kd.joint_head import JointHead
from tutelage.methods.residual_kd.width import classifier_name


def member_names(num_assistants: int) -> list[str]:
    """Return the names of the members of a `ResidualNetwork`.

    >>> member_names(2)
    ['student', 'assistants.0', 'assistants.1']
    """
    return ["student", *(f"assistants.{k}" for k in range(num_assistants))]


class ResidualNetwork(nn.Module):
    """One network with one forward pass: images to logits.

    >>> member = lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> ResidualNetwork(member(), [member()])(torch.ones(2, 1, 2, 2)).shape
    torch.Size([2, 3])

    Args:
        student: a network that ends in a linear classifier.
        assistants: networks of the same structure.
    """

    def __init__(self, student: nn.Module, assistants: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.assistants = nn.ModuleList(assistants)
        self.head: nn.Module = SumHead()
        self._classifier = classifier_name(student)
        statistics = normalization(student)
        if statistics is not None:
            # Normalize the images once, before all members; their own statistics become 0 and 1.
            mean, std = statistics
            normalize_inputs(self, mean, std)
            for member in self.members:
                normalize_inputs(member, mean=[0.0] * len(mean), std=[1.0] * len(mean))

    @property
    def members(self) -> list[nn.Module]:
        """The student and the assistants."""
        return [self.student, *self.assistants]

    @property
    def classifiers(self) -> list[nn.Module]:
        """The members' last layers: linear ones, or identities while there is a joint head."""
        return [member.get_submodule(self._classifier) for member in self.members]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head([member(images) for member in self.members])
        return logits

    def joint_head(self) -> JointHead:
        """Return the head in training.

        It is no property, because tracing a module reads all of its properties.

        Raises:
            UserError: If there is none yet.
        """
        if not isinstance(self.head, JointHead):
            raise UserError(
                "the adapters are not built yet; call distiller.setup(batch) before the first step"
            )
        return self.head

    def set_joint_head(self, head: JointHead) -> None:
        """Let the members give their pooled features, and this head the logits."""
        for member in self.members:
            self._replace_classifier(member, nn.Identity())
        self.head = head

    def fuse(self) -> ResidualNetwork:
        """Fuse adapters and head into one linear classifier per member, in place.

        The logits stay as they are. Does nothing if there is no joint head.
        """
        if isinstance(self.head, JointHead):
            for index, member in enumerate(self.members):
                self._replace_classifier(member, self.head.fused_classifier(index))
            self.head = SumHead()
        return self

    def student_only(self) -> nn.Module:
        """Return a copy of the student without its assistants, as a network of its own."""
        network = copy.deepcopy(self).fuse()
        remove_taps(network)
        statistics = normalization(self)
        if statistics is None:
            return network.student
        mean, std = statistics
        return normalize_inputs(network.student, mean, std)

    def _replace_classifier(self, member: nn.Module, classifier: nn.Module) -> None:
        parent, _, name = self._classifier.rpartition(".")
        member.get_submodule(parent).register_module(name, classifier)


class SumHead(nn.Module):
    """The deployed head: the sum of the members' logits."""

    def forward(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the sum."""
        return torch.stack(list(logits)).sum(0)
