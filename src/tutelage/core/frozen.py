"""Hold a module without registering it: not trained, not saved, not moved by its owner."""

from __future__ import annotations

from typing import Generic, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Unregistered(Generic[ModuleT]):
    """A module that its owner uses but does not own.

    `nn.Module` registers every module that is assigned to an attribute; behind this wrapper it is
    absent from `parameters()`, `state_dict()`, `.train()` and `.to()` of the owner.

    >>> owner = nn.Module()
    >>> owner.teacher_classifier = Unregistered(nn.Linear(4, 2))
    >>> list(owner.parameters()), owner.teacher_classifier.module.out_features
    ([], 2)

    Args:
        module: the module to hold.
    """

    def __init__(self, module: ModuleT) -> None:
        self.module = module

    def __repr__(self) -> str:
        return f"Unregistered({type(self.module).__name__})"
