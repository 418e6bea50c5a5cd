"""Checks of what a CKA accumulator is given, with messages that name the layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.errors import UserError, near_misses
from tutelage.similarity._all_pairs import Sums
from tutelage.similarity._checks import flat_rows

Layers = Mapping[str, Tensor] | Sequence[Tensor]
Ids = Sequence[object] | Tensor
Named = list[tuple[str, Tensor]]
"""Tensors of one side, each with what error messages call its layer."""


def check_layer_names(names: Sequence[str], side: str) -> tuple[str, ...]:
    """Return the layer names of one side.

    Raises:
        UserError: If there are none, if a name occurs twice, or if it is a single string.
    """
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    are_names = is_list and all(isinstance(name, str) for name in names)
    if not are_names or len(names) == 0 or len(set(names)) < len(names):
        raise UserError(
            f"{side} must be a list of different layer names, at least one, got {names!r}"
        )
    return tuple(names)


def check_permutations(permutations: int, seed: int) -> None:
    """Raise unless the number of pairings and their seed are whole numbers, the first from 0 on."""
    for name, value in (("permutations", permutations), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{name} must be a whole number, got {value!r}")
    if permutations < 0:
        raise UserError(f"permutations must be at least 0, got {permutations}")


def in_order(layers: Layers, names: tuple[str, ...], side: str) -> Named:
    """Return the layers of one side in the order of their names.

    Args:
        layers: by name, or in the order of the names.
        names: of the layers.
        side: "left" or "right".

    Raises:
        UserError: If a layer is missing or there are too many.
    """
    labels = [f"{side} layer {name!r}" for name in names]
    if isinstance(layers, Mapping):
        for name, label in zip(names, labels, strict=True):
            if name not in layers:
                raise UserError(f"{label} is missing from the batch{near_misses(name, layers)}")
        return [(label, layers[name]) for name, label in zip(names, labels, strict=True)]
    if len(layers) != len(names):
        raise UserError(
            f"there are {len(names)} {side} layers, but the batch holds {len(layers)}; give all of "
            "them"
        )
    return list(zip(labels, layers, strict=True))


def as_features(layers: Named) -> Named:
    """Return features (n, ...) as detached rows (n, d).

    Raises:
        UserError: If features are 1-D, empty or integer.
    """
    return [(label, flat_rows(x, label).detach()) for label, x in layers]


def as_grams(layers: Named) -> Named:
    """Return Gram matrices (n, n) detached.

    Raises:
        UserError: If a matrix is not floating, square or symmetric.
    """
    for label, k in layers:
        _check_square(k, label)
    matrices = [(label, k.detach()) for label, k in layers]
    # One look at all of them: an accelerator would wait for every one.
    gaps = [(k - k.mT).abs().amax() > 1e-3 * k.abs().amax() for _, k in matrices]
    asymmetric = torch.stack([gap.to(gaps[0].device) for gap in gaps]).tolist() if gaps else []
    for (label, _), is_wrong in zip(matrices, asymmetric, strict=True):
        if is_wrong:
            raise UserError(
                f"{label} is not symmetric, so it is no Gram matrix; give features to update, or "
                "use gram_of"
            )
    return matrices


def count_items(layers: Named) -> int:
    """Return the number of items n.

    Raises:
        UserError: If it differs between layers.
    """
    first_label, first = layers[0]
    n = first.shape[0]
    for label, x in layers:
        if x.shape[0] != n:
            raise UserError(
                f"{label} has {x.shape[0]} rows, {first_label} {n}; all layers must see the same "
                "items"
            )
    return n


def check_ids(ids: Ids | None, ids_right: Ids | None, n: int) -> list[object]:
    """Return the ids of n items, an empty list without ids.

    Raises:
        UserError: If there are not n of them, or if those of the right side differ.
    """
    left = None if ids is None else _as_list(ids)
    right = None if ids_right is None else _as_list(ids_right)
    if left is not None and len(left) != n:
        raise UserError(f"there are {len(left)} ids for {n} items; give one for each")
    if right is not None and left != right:
        raise UserError(
            "the two sides saw different items, or in another order; run both on the same batches"
        )
    return left or []


def check_finite(sums: Sums, left: tuple[str, ...], right: tuple[str, ...], batch: int) -> None:
    """Raise if a layer of a batch was NaN or infinite.

    Args:
        sums: of the batch.
        left: names of the left layers.
        right: names of the right layers, empty if there are none.
        batch: number of the batch, for the message.

    Raises:
        UserError: With the name of the first such layer.
    """
    for side, names, own in (("left", left, sums.xx), ("right", right, sums.yy)):
        # Without right layers, yy is that of the left ones and `names` is empty.
        for name, finite in zip(names, own.isfinite().tolist(), strict=False):
            if not finite:
                raise UserError(
                    f"{side} layer {name!r} holds NaN or infinity in batch {batch}; look at its "
                    "input"
                )


def _check_square(k: Tensor, label: str) -> None:
    if not k.dtype.is_floating_point or k.ndim != 2 or k.shape[0] != k.shape[1] or len(k) == 0:
        raise UserError(
            f"{label} is of {k.dtype} and shape {tuple(k.shape)}, no Gram matrix (n, n); use "
            "gram_of"
        )


def _as_list(ids: Ids) -> list[object]:
    return list(ids.tolist() if isinstance(ids, Tensor) else ids)
