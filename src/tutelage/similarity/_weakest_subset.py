"""The group of rows whose translation, harmless to a linear head, pushes CKA down most.

The biased CKA of X and of X with the rows S moved by c along a direction v that the features do not
use is, with 1_S centered, η = ‖H 1_S‖² and KB = ‖Xcᵀ 1_S‖²,

    CKA(c) = (KK + c² KB) / √(KK (KK + 2 c² KB + c⁴ η²)),     KK = ‖Xc Xcᵀ‖²

and for c → ∞ it falls to KB / (√KK η). See `_subset_translation.py` for any direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import as_rows, check_tensors, varies, warn_undefined
from tutelage.similarity._subset_translation import squared_gram_norm


@dataclass(frozen=True)
class Translation:
    """The group of rows whose translation lowers CKA most.

    Attributes:
        group: the label of the group; without labels the index of a row.
        size: how many rows move.
        limit: the biased CKA of x and x with these rows moved infinitely far.
        distance: the smallest distance at which that CKA is below one half, in units of the root
            mean square length of the centered rows; infinite if it never is.
    """

    group: int
    size: int
    limit: float
    distance: float


def weakest_subset(x: Tensor, labels: Tensor | None = None) -> Translation:
    """Return the group of rows whose translation lowers the biased linear CKA most.

    The direction is one that the features do not use, which a linear head need not see: no margin
    between classes changes, and with more columns than classes no logit.

    >>> result = weakest_subset(torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> result.group, result.size, round(result.limit, 4), round(result.distance, 2)
    (2, 1, 0.0416, 3.07)

    Args:
        x: (n, ...), floating.
        labels: (n,), integers; rows of one label move together. None moves single rows.

    Raises:
        UserError: As `as_rows`; also if labels do not fit, or if there is only one group.
    """
    check_tensors("the weakest subset", x)
    rows = as_rows(x.detach(), "x")
    groups = None if labels is None else _groups(labels, rows)
    if not varies(x):
        warn_undefined("CKA", ["x"])
        size = 1 if groups is None else int(groups[1][0].sum())
        return Translation(group=0, size=size, limit=math.nan, distance=math.nan)
    with full_precision(rows.device):
        rows = rows - rows.mean(0)
        # No result depends on the scale. A power of two changes no digit, and keeps what follows,
        # the eighth power of the features, in range.
        rows = rows * 2.0 ** -math.frexp(float(rows.abs().amax()))[1]
        kk = squared_gram_norm(rows)
        if groups is None:
            sizes = rows.new_ones(len(rows))
            sums = rows
        else:
            membership = groups[1]
            sizes = membership.sum(1)
            sums = membership @ rows
        trace = rows.square().sum()
        result = _weakest(kk, sums.square().sum(1), sizes, trace, len(rows))
    return result if groups is None else replace(result, group=int(groups[0][result.group]))


def weakest_row(squared_lengths: Tensor, kk: Tensor) -> Translation:
    """Return the `weakest_subset` of single rows.

    >>> weakest_row(torch.tensor([16.0, 16.0, 1.0, 1.0]), torch.tensor(1026.0)).group
    2

    Args:
        squared_lengths: (n,), of the centered rows.
        kk: 0-d, KK, the squared norm of their Gram matrix.
    """
    n = len(squared_lengths)
    ones = torch.ones_like(squared_lengths)
    return _weakest(kk, squared_lengths, ones, squared_lengths.sum(), n)


def _weakest(kk: Tensor, kb: Tensor, sizes: Tensor, trace: Tensor, n: int) -> Translation:
    """Return the translation that lowers CKA most; its group is an index.

    Args:
        kk: 0-d, KK.
        kb: (groups,), KB.
        sizes: (groups,), how many rows a group has.
        trace: 0-d, the squared lengths of all rows.
        n: rows.
    """
    eta = sizes * (1 - sizes / n)  # ‖H 1_S‖²
    limits = kb / (kk.sqrt() * eta)
    worst = int(limits.argmin())
    distance = _half_distance(float(kk), float(kb[worst]), float(eta[worst]) ** 2)
    return Translation(
        group=worst,
        size=int(sizes[worst]),
        limit=float(limits[worst]),
        distance=distance / float((trace / n).sqrt()),
    )


def _half_distance(kk: float, kb: float, bb: float) -> float:
    """Return the smallest c at which CKA(c) is 1/2, infinity if there is none.

    Squared, CKA(c) = 1/2 is (kk + c² kb)² = kk (kk + 2 c² kb + c⁴ bb) / 4, quadratic in c².
    """
    quadratic = kb**2 - kk * bb / 4
    half_linear = 0.75 * kk * kb
    constant = 0.75 * kk**2
    if quadratic >= 0:
        return math.inf
    squared = (-half_linear - (half_linear**2 - quadratic * constant) ** 0.5) / quadratic
    return float(squared**0.5)


def _groups(labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels that occur, and (groups, n), 1 where a row belongs to a group."""
    check_tensors("the weakest subset (labels)", labels)
    integers = not (labels.dtype.is_floating_point or labels.dtype.is_complex)
    if labels.shape != (len(rows),) or not integers:
        raise UserError(
            f"labels must be {len(rows)} integers, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    names = torch.unique(labels)
    if len(names) < 2:
        raise UserError("all rows have one label; give at least two groups, or no labels")
    return names, (names[:, None] == labels).to(rows)
