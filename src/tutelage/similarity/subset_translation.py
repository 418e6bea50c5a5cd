"""Moving a subset of the items: how far one translation, harmless to a linear head, pushes CKA down.

    X(c) = X + c 1_S vᵀ        S: a subset of the rows, v: a unit vector

CKA(X, X(c)) has a closed form in c, and as c → ∞ the biased one falls to a limit that depends on S alone:

    Γ(ρ) ‖μ_S‖² / ‖Σ‖,   Γ(ρ) = ρ/(1 - ρ),   ρ = |S|/n,   μ_S: mean of the centred rows in S,   Σ = XcᵀXc/n

Source: M. Davari, S. Horoi, A. Natik, G. Lajoie, G. Wolf, E. Belilovsky, "Reliability of CKA as a Similarity
Measure in Deep Learning", ICLR 2023, Theorem 1; official code rezazzr/xmas_cka@9849812 (no licence: nothing
copied). The forms for finite c and for the debiased estimator are derived for this library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.checks import as_rows, one_of, say_undefined, varies
from tutelage.similarity.gram import full_precision, gram

ESTIMATORS = ("biased", "debiased")


def subset_translation(x: Tensor, mask: Tensor, v: Tensor, c: float) -> Tensor:
    """Return x with the rows of a subset moved by c along v.

    >>> subset_translation(torch.zeros(3, 2), torch.tensor([True, False, False]), torch.tensor([0.0, 5.0]), 2.0)[0]
    tensor([0., 2.], dtype=torch.float64)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        mask: (n,), bool: the rows that move.
        v: (p,), the direction; its length is divided out.
        c: how far.

    Returns:
        (n, p) float64, differentiable in x.

    Raises:
        UserError: the mask is empty, full or of the wrong length; v is zero or of the wrong length; x is 1-D,
            empty, integer, NaN or infinite.
    """
    rows = as_rows(x, "x")
    return rows + c * _members(mask, rows)[:, None] * _direction(v, rows)


def subset_translation_cka(
    x: Tensor, mask: Tensor, v: Tensor, cs: Sequence[float] | Tensor, estimator: str = "biased"
) -> Tensor:
    """Return the linear CKA of x and `subset_translation(x, mask, v, c)` for many c, from one pass over x.

        CKA(X, X(c)) = (kk + c ka + c² kb) / √(kk (kk + 2c ka + c² (aa + 2kb) + 2c³ ab + c⁴ bb))

    with kk = HSIC(K, K), ka = HSIC(K, A), … for K = XXᵀ, t = Xv, A = t 1_Sᵀ + 1_S tᵀ, B = 1_S 1_Sᵀ.

    >>> x, mask = torch.eye(4)[:, :2], torch.tensor([True, False, False, False])
    >>> [round(value, 4) for value in subset_translation_cka(x, mask, torch.ones(2), [0.0, 1e9]).tolist()]
    [1.0, 0.7454]

    Args:
        x: (n, ...), floating.
        mask: (n,), bool.
        v: (p,), the direction.
        cs: distances.
        estimator: `"biased"` or `"debiased"`, of `cka`.

    Returns:
        (len(cs),) float64, differentiable in x; NaN with a warning where x does not vary.

    Raises:
        UserError: as `subset_translation`; fewer than 4 rows if debiased.
    """
    rows, moments = _moments(x, mask, v, estimator)
    c = torch.as_tensor(cs, dtype=rows.dtype, device=rows.device)
    return moments.cka(c)


def subset_translation_limit(x: Tensor, mask: Tensor, estimator: str = "biased", v: Tensor | None = None) -> Tensor:
    """Return what `subset_translation_cka` tends to for c → ∞.

        kb / √(kk bb),  for the biased estimator equal to ρ/(1 - ρ) ‖μ_S‖² / ‖Σ‖

    It does not depend on v, except for the debiased estimator and a single row (or all but one), where the
    U-centred B is 0 and the limit is ka / √(kk aa); for c → -∞ it has the other sign there.

    >>> x, mask = torch.eye(4)[:, :2], torch.tensor([True, False, False, False])
    >>> round(subset_translation_limit(x, mask).item(), 4)
    0.7454

    Args:
        x: (n, ...), floating.
        mask: (n,), bool.
        estimator: `"biased"` or `"debiased"`.
        v: (p,), the direction, where it matters.

    Returns:
        0-d float64, differentiable in x; NaN with a warning where x does not vary.

    Raises:
        UserError: as `subset_translation`; also where v is needed and not given.
    """
    rows, m = _moments(x, mask, v, estimator)
    single = estimator == "debiased" and int(mask.sum()) in (1, len(rows) - 1)
    if single and v is None:
        raise UserError("the debiased limit for a single moved row depends on the direction; give v")
    return m.ka / (m.kk * m.aa).sqrt() if single else m.kb / (m.kk * m.bb).sqrt()


@dataclass(frozen=True)
class Translation:
    """The subset whose translation hurts CKA most, over all groups.

    Attributes:
        group: the label of the group; without labels the index of a row.
        size: how many rows move.
        limit: the biased CKA of x and x with these rows moved infinitely far.
        distance: the least distance at which that CKA is below one half, in units of the root mean square
            length of the centred rows; infinite if it never is.
    """

    group: int
    size: int
    limit: float
    distance: float


def weakest_subset(x: Tensor, labels: Tensor | None = None) -> Translation:
    """Return the group of rows whose translation hurts the biased linear CKA most.

    The direction is one that the features do not use, which a linear head need not see: no margin between
    classes changes, and with more columns than classes no logit.

    >>> found = weakest_subset(torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> found.group, found.size, round(found.limit, 4), round(found.distance, 2)
    (2, 1, 0.0416, 3.07)

    Args:
        x: (n, ...), floating.
        labels: (n,), integers; rows of one label move together. None moves single rows.

    Raises:
        UserError: as `as_rows`; labels do not fit; there is only one group.
    """
    rows = as_rows(x.detach(), "x")
    names, member = (None, None) if labels is None else _groups(labels, rows)
    if not varies(x):
        say_undefined("CKA", ["x"])
        return Translation(0, 1 if member is None else int(member[0].sum()), float("nan"), float("nan"))
    with full_precision(rows.device):
        rows = rows - rows.mean(0)
        kk = _squared_gram(rows)
        sizes = rows.new_ones(len(rows)) if member is None else member.sum(1)
        eta = sizes * (1 - sizes / len(rows))  # ‖H 1_S‖²
        kb = (rows if member is None else member @ rows).square().sum(1)
        limits = kb / (kk.sqrt() * eta)
        worst = int(limits.argmin())
        unit = rows.square().sum().div(len(rows)).sqrt()
    distance = _half_distance(float(kk), float(kb[worst]), float(eta[worst]) ** 2) / float(unit)
    return Translation(worst if names is None else int(names[worst]), int(sizes[worst]), float(limits[worst]), distance)


class _Moments(NamedTuple):
    kk: Tensor
    ka: Tensor
    kb: Tensor
    aa: Tensor
    ab: Tensor
    bb: Tensor

    def cka(self, c: Tensor) -> Tensor:
        """Return the closed form."""
        moved = self.kk + c * (2 * self.ka + c * (self.aa + 2 * self.kb + c * (2 * self.ab + c * self.bb)))
        return (self.kk + c * (self.ka + c * self.kb)) / (self.kk * moved).sqrt()


def _moments(x: Tensor, mask: Tensor, v: Tensor | None, estimator: str) -> tuple[Tensor, _Moments]:
    one_of(estimator, ESTIMATORS, "the estimator of a subset translation")
    debiased = estimator == "debiased"
    rows = as_rows(x, "x", 4 if debiased else 2)
    s, v = _members(mask, rows), _direction(v, rows)
    if not varies(x):
        say_undefined("CKA", ["x"])
        nan = rows.new_full((), float("nan"))
        return rows, _Moments(nan, nan, nan, nan, nan, nan)
    with full_precision(rows.device):
        rows = rows - rows.mean(0)
        t, s = rows @ v, s if debiased else s - s.mean()
        u, st = rows.mT @ s, s @ t
        ss, tt = s @ s, t @ t
        found = _Moments(_squared_gram(rows), 2 * u @ (rows.mT @ t), u @ u, 2 * (tt * ss + st**2), 2 * st * ss, ss**2)
        if not debiased:
            return rows, found
        k = _Hollow(rows.square().sum(1), -rows.square().sum(1))
        a = _Hollow(2 * s * t, t * s.sum() + s * t.sum() - 2 * s * t)
        b = _Hollow(s, s * (s.sum() - 1))
        pairs = ((k, k), (k, a), (k, b), (a, a), (a, b), (b, b))
        return rows, _Moments(*(one.u_dot(full, other) for full, (one, other) in zip(found, pairs, strict=True)))


class _Hollow(NamedTuple):
    """The diagonal of a symmetric matrix, and the sums of its rows without it."""

    diagonal: Tensor
    rows: Tensor

    def u_dot(self, full: Tensor, other: _Hollow) -> Tensor:
        """Return the product of the two U-centred matrices, given that of the full ones."""
        n = len(self.rows)
        hollow = full - self.diagonal @ other.diagonal
        totals = self.rows.sum() * other.rows.sum() / ((n - 1) * (n - 2))
        return hollow - 2 / (n - 2) * (self.rows @ other.rows) + totals


def _squared_gram(rows: Tensor) -> Tensor:
    return gram(rows if len(rows) <= rows.shape[1] else rows.mT).square().sum()


def _half_distance(kk: float, kb: float, bb: float) -> float:
    """Return the least c with (kk + c² kb)² = kk (kk + 2 c² kb + c⁴ bb) / 4: v is orthogonal to all features."""
    leading, middle, last = kb**2 - kk * bb / 4, 0.75 * kk * kb, 0.75 * kk**2
    if leading >= 0:
        return float("inf")
    return float(((-middle - (middle**2 - leading * last) ** 0.5) / leading) ** 0.5)


def _members(mask: Tensor, rows: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != (len(rows),):
        raise UserError(
            f"the mask must be bool of shape ({len(rows)},), one entry a row, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}"
        )
    if not bool(mask.any()) or bool(mask.all()):
        raise UserError("the mask must choose some rows and leave some, or nothing moves against the rest")
    return mask.to(rows)


def _direction(v: Tensor | None, rows: Tensor) -> Tensor:
    v = rows.new_ones(rows.shape[1]) if v is None else v
    if v.shape != (rows.shape[1],):
        raise UserError(f"the direction must have shape ({rows.shape[1]},), one entry a column, got {tuple(v.shape)}")
    v = v.detach().to(rows)
    if not bool(v.isfinite().all()) or not bool(v.any()):
        raise UserError("the direction must be finite and not zero")
    return cast(Tensor, v / torch.linalg.vector_norm(v))


def _groups(labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels that occur, and (groups, n), 1 where a row belongs to a group."""
    if labels.shape != (len(rows),) or labels.dtype.is_floating_point:
        raise UserError(f"labels must be {len(rows)} integers, got {labels.dtype} of shape {tuple(labels.shape)}")
    known = torch.unique(labels)
    if len(known) < 2:
        raise UserError("all rows have one label; give at least two groups, or no labels")
    return known, (known[:, None] == labels).to(rows)
