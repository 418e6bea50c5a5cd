"""What a CKA accumulator accepts, and what it says when a batch does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from tutelage.errors import UserError, near_misses

Layers = Mapping[str, Tensor] | Sequence[Tensor]
Ids = Sequence[object] | Tensor


def same_count(layers: Sequence[tuple[str, Tensor]]) -> int:
    """Return the number of items, once all layers agree on it."""
    first, n = layers[0][0], layers[0][1].shape[0]
    for name, x in layers:
        if x.shape[0] != n:
            raise UserError(f"{name} has {x.shape[0]} rows, {first} {n}; all layers must see the same items")
    return n


def same_ids(left: Ids | None, right: Ids | None, n: int) -> list[object]:
    """Return the ids of n items, none if there are none, once both sides agree on them and on their order."""
    one, two = (None if each is None else _as_list(each) for each in (left, right))
    if one is not None and len(one) != n:
        raise UserError(f"there are {len(one)} ids for {n} items; give one for each")
    if two is not None and one != two:
        raise UserError("the two sides saw different items, or in another order; run both on the same batches")
    return one or []


def layer_names(names: Sequence[str], side: str) -> tuple[str, ...]:
    """Return names that are fit to label one side."""
    if isinstance(names, str) or len(names) == 0 or len(set(names)) < len(names):
        raise UserError(f"{side} must be a list of different layer names, at least one, got {names!r}")
    return tuple(names)


def ordered(layers: Layers, names: tuple[str, ...], side: str) -> list[tuple[str, Tensor]]:
    """Return what messages call each layer, and its tensor, in the order of the names."""
    if isinstance(layers, Mapping):
        for name in names:
            if name not in layers:
                raise UserError(f"{side} layer {name!r} is missing from the batch{near_misses(name, layers)}")
        return [(f"{side} layer {name!r}", layers[name]) for name in names]
    if len(layers) != len(names):
        raise UserError(f"there are {len(names)} {side} layers, but the batch holds {len(layers)}; give all of them")
    return [(f"{side} layer {name!r}", layer) for name, layer in zip(names, layers, strict=True)]


def gram_matrix(k: Tensor, name: str) -> Tensor:
    """Return k if it can be a Gram matrix."""
    if not k.dtype.is_floating_point or k.ndim != 2 or k.shape[0] != k.shape[1] or len(k) == 0:
        raise UserError(f"{name} is of {k.dtype} and shape {tuple(k.shape)}, no Gram matrix (n, n); use gram_of")
    if (k - k.mT).abs().amax() > 1e-3 * k.abs().amax():
        raise UserError(f"{name} is not symmetric, so it is no Gram matrix; give features to update, or use gram_of")
    return k


def _as_list(ids: Ids) -> list[object]:
    return list(ids.tolist() if isinstance(ids, Tensor) else ids)
