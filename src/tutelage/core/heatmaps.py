"""Heat maps of joints: how they stand in an output, and the squared error of all of them.

A network for poses gives maps (N, K, h, w), or (N, S, K, h, w) of S stacks of which the last is the
prediction; by themselves, or as `heatmaps` of a mapping. With several branches the mapping may hold
the maps of the others as `auxiliary`, by name, and an `ensemble` (N, K, h, w).

The labels of a batch are points (N, K, 3): x, y in pixels of the network's input, and the weight, 0
for a joint that is not labeled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError


def heatmaps_of(output: Any) -> Tensor:
    """Return the maps in a network's output as (N, S, K, h, w).

    >>> import torch
    >>> heatmaps_of({"heatmaps": torch.zeros(2, 17, 8, 6)}).shape
    torch.Size([2, 1, 17, 8, 6])

    Raises:
        UserError: If there are none.
    """
    maps = output.get("heatmaps") if isinstance(output, Mapping) else output
    if not isinstance(maps, Tensor) or maps.ndim not in (4, 5) or not maps.is_floating_point():
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(output).__name__
        raise UserError(
            f"the network gives {got}, but poses need heat maps (N, K, h, w), or (N, S, K, h, w) "
            "of S stacks, by themselves or as 'heatmaps' of a mapping; check student.model"
        )
    return maps if maps.ndim == 5 else maps[:, None]


def auxiliary_maps(output: Any) -> dict[str, Tensor]:
    """Return the maps of further branches, each (N, S, K, h, w), by name."""
    entries = output.get("auxiliary", {}) if isinstance(output, Mapping) else {}
    return {name: heatmaps_of(maps) for name, maps in entries.items()}


def further_predictions(output: Any) -> dict[str, Tensor]:
    """Return the last maps (N, K, h, w) of further branches and of the ensemble, by name."""
    found = {name: maps[:, -1] for name, maps in auxiliary_maps(output).items()}
    if isinstance(output, Mapping) and "ensemble" in output:
        found["ensemble"] = heatmaps_of(output["ensemble"])[:, -1]
    return found


def flip_order(names: Sequence[str], pairs: Sequence[Sequence[str]]) -> Tensor:
    """Return which joint each one is in a mirror, (K,).

    >>> flip_order(["nose", "left_eye", "right_eye"], [("left_eye", "right_eye")])
    tensor([0, 2, 1])

    Args:
        names: of the joints.
        pairs: names of the joints that change places.

    Raises:
        UserError: If a pair names an unknown joint, one joint twice, or a joint of another pair.
    """
    order = list(range(len(names)))
    seen: set[str] = set()
    for pair in pairs:
        unknown = [name for name in pair if name not in names]
        if unknown:
            raise UserError(
                f"the flip pair {list(pair)} names {unknown[0]!r}, which is none of the joints "
                f"{list(names)}; name two of them"
            )
        if len(pair) != 2 or len(set(pair)) != 2 or seen & set(pair):
            raise UserError(
                f"the flip pair {list(pair)} is not two joints that are in no other pair; give "
                "each joint one partner at most"
            )
        seen |= set(pair)
        first, second = (list(names).index(name) for name in pair)
        order[first], order[second] = second, first
    return torch.tensor(order)


def joint_weights(batch: Batch) -> Tensor:
    """Return the weights of the joints (N, K) in the labels of a batch.

    Raises:
        UserError: If the labels are no points.
    """
    points = batch.labels
    if not isinstance(points, Tensor) or points.ndim != 3 or points.shape[-1] != 3:
        got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise UserError(
            f"the labels are {got}, but poses need points (N, K, 3): x, y and the weight of each "
            "joint; check that task and data belong together"
        )
    return points[..., 2]


def checked_weights(weight: Tensor | None, maps: Tensor) -> Tensor | None:
    """Return weights as (N, K) in the maps' precision, or None if there are none.

    Args:
        weight: (N, K) or (N, K, 1), at least 0.
        maps: (N, K, h, w) or (N, S, K, h, w).

    Raises:
        UserError: If shapes do not fit, or, on a CPU, a weight is negative or NaN.
    """
    if weight is None:
        return None
    count = (len(maps), maps.shape[-3])
    if tuple(weight.shape) not in (count, (*count, 1)):
        raise UserError(
            f"weights of joints are {count} or {(*count, 1)} for maps {tuple(maps.shape)}, got "
            f"{tuple(weight.shape)}; give one weight a joint"
        )
    flat = promote(weight.reshape(count)).to(promote(maps).dtype)
    # Reading values from an accelerator would make every step wait for it.
    if weight.device.type == "cpu" and not bool((flat >= 0).all()):
        raise UserError(
            "weights of joints are numbers from 0 on, but some are negative or NaN; give 1 to a "
            "visible joint and 0 to a missing one"
        )
    return flat


def check_same_maps(what: str, maps: Tensor, target: Tensor) -> None:
    """Raise unless maps (N, ..., K, h, w) and targets (N, K, h, w) belong together.

    Args:
        what: names both, for the message.
        maps: of a network.
        target: what they are compared with.

    Raises:
        UserError: If a dimension is not right, or shapes or dtypes do not fit.
    """
    for value in (maps, target):
        if not isinstance(value, Tensor):
            raise UserError(
                f"{what} need heat maps as tensors, got {type(value).__name__}; use torch.as_tensor"
            )
    is_float = maps.is_floating_point() and target.is_floating_point()
    fits = maps.ndim in (4, 5) and target.ndim == 4 and maps.numel() > 0 and is_float
    if not fits or len(maps) != len(target) or maps.shape[-3:] != target.shape[-3:]:
        raise UserError(
            f"{what} need floating-point heat maps (N, K, h, w) of the same images, joints and "
            f"size, got {tuple(maps.shape)} {maps.dtype} and {tuple(target.shape)} {target.dtype}; "
            "give both networks the same number of joints and the same stride"
        )


def heatmap_mse(maps: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return ½ · mean over images, joints and pixels of (w · (o - g))², summed over stacks.

    The mean is over all joints, those of weight 0 included, as in the official code of OKDHP.

    >>> import torch
    >>> heatmap_mse(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).item()
    0.5

    Args:
        maps: o, (N, K, h, w) or (N, S, K, h, w).
        target: g, (N, K, h, w).
        weight: w, (N, K) or (N, K, 1); None weighs all joints alike.

    Returns:
        A scalar, float32 for half precision; 0 if no joint has a weight.

    Raises:
        UserError: If shapes do not fit, or a weight is negative or NaN.
    """
    check_same_maps("squared errors", maps, target)
    weight = checked_weights(weight, maps)
    with full_precision(maps.device):
        stacks = promote(maps if maps.ndim == 5 else maps[:, None])
        difference = stacks - promote(target)[:, None]
        if weight is not None:
            difference = difference * weight[:, None, :, None, None]
        return 0.5 * difference.square().mean() * stacks.shape[1]
