"""The address of a tap, and how it is followed into what a module returned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.errors import UserError

_ADDRESS = re.compile(r"(?P<module>[^:\[\]]*)(?::(?P<call>\d+))?(?P<items>(?:\[[^\[\]]+\])*)")


@dataclass(frozen=True)
class Address:
    """A parsed tap address.

    Attributes:
        text: the address as it was written.
        module: name of the submodule.
        call: which call of it; None is the last one.
        items: what to pick of its output, one after the other.
    """

    text: str
    module: str
    call: int | None
    items: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address.

        >>> Address.parse("encoder:1[hidden_states][2]").items
        ('hidden_states', '2')
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not match["module"]:
            raise UserError(
                f"{text!r} is not a tap address; write 'module', 'module:call' or 'module[item]'"
            )
        items = tuple(re.findall(r"\[([^\[\]]+)\]", match["items"]))
        call = None if match["call"] is None else int(match["call"])
        return cls(text, match["module"], call, items)

    def pick(self, output: Any) -> Tensor:
        """Follow the items into a module's output, down to a tensor."""
        value = output
        for item in self.items:
            value = self._descend(value, item)
        if not isinstance(value, Tensor):
            choices = _choices(value)
            hint = (
                f"; choose one of {[f'{self.text}[{c}]' for c in choices[:8]]}" if choices else ""
            )
            kind = type(value).__name__
            raise UserError(f"the tap {self.text!r} gives a {kind}, not a tensor{hint}")
        return value

    def _descend(self, value: Any, item: str) -> Any:
        if isinstance(value, Mapping) and item in value:
            return value[item]
        if isinstance(value, Sequence) and item.lstrip("-").isdigit():
            index = int(item)
            if -len(value) <= index < len(value):
                return value[index]
        if item in _attributes(value):
            return _attributes(value)[item]
        raise UserError(
            f"the tap {self.text!r} finds no [{item}] in a {type(value).__name__}; "
            f"there are {_choices(value)}"
        )


def _choices(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [str(i) for i in range(len(output))]
    return list(_attributes(output))


def _attributes(output: Any) -> dict[str, Any]:
    """Return the attributes of an object such as torchvision's ImageList; none of a tensor."""
    try:
        return {} if isinstance(output, Tensor) else vars(output)
    except TypeError:
        return {}
