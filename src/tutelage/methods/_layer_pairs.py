"""The pairs of layers that several methods take, and the parts that are built for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tutelage.core._arguments import shown_kind
from tutelage.errors import UserError


def checked_pairs(method: str, layer_pairs: object, *, optional: bool = False) -> dict[str, str]:
    """Return pairs of layers as a new dictionary.

    >>> checked_pairs("FitNet", {"stage3": "layer3"})
    {'stage3': 'layer3'}
    >>> checked_pairs("RCKA", "stage3")
    Traceback (most recent call last):
    tutelage.errors.UserError: RCKA takes layer_pairs as a mapping of the student's layers to the \
teacher's, such as {'stage3': 'stage3'}, got the text 'stage3'

    Args:
        method: name of the method, for the message.
        layer_pairs: student layer → teacher layer.
        optional: accept None and no pairs.

    Raises:
        UserError: If there are no pairs, if they are no mapping, or if a layer is no name.
    """
    if optional and layer_pairs is None:
        return {}
    if not isinstance(layer_pairs, Mapping):
        raise UserError(
            f"{method} takes layer_pairs as a mapping of the student's layers to the teacher's, "
            f"such as {{'stage3': 'stage3'}}, got {shown_kind(layer_pairs)}"
        )
    if not layer_pairs and not optional:
        raise UserError(
            f"{method} needs at least one pair of layers, such as "
            "layer_pairs={'layer3': 'layer3'}"
        )
    for pair in layer_pairs.items():
        for layer in pair:
            if not isinstance(layer, str):
                raise UserError(
                    f"{method} pairs the name of one layer with that of another, got "
                    f"{shown_kind(layer)} in layer_pairs; several teacher layers need several "
                    "methods, see CombinedMethod"
                )
    return dict(layer_pairs)


def check_built(method: str, parts: nn.ModuleList, pairs: Mapping[str, str]) -> None:
    """Raise if the parts of the pairs are not built yet, which `setup` does.

    >>> check_built("FitNet", nn.ModuleList(), {"stage3": "layer3"})
    Traceback (most recent call last):
    tutelage.errors.UserError: FitNet is not set up yet; call distiller.setup(batch) before the \
first step
    """
    if len(parts) != len(pairs):
        raise UserError(
            f"{method} is not set up yet; call distiller.setup(batch) before the first step"
        )
