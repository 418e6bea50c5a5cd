"""All pairs of layers at once: sums of products of U-centred Gram matrices, in Gram or in feature space.

    xy_ij = <U(K_i), U(L_j)>,   xx_i = <U(K_i), U(K_i)>,   yy_j = <U(L_j), U(L_j)>         = n (n - 3) HSIC₁

Undivided, they are added over batches as they are: that is the weight n (n - 3) which makes the ratio of the
sums unbiased for ragged batches too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.similarity.gram import full_precision, inverse, promote
from tutelage.similarity.layer_gram import Grams

KEPT = {torch.float32: 0.1, torch.float64: 1e-8}  # <U, U> / <K, K> down to which 1e-6 is safe in feature space
CHUNK = 2048  # columns of the left side whose products are formed at a time


class Sums(NamedTuple):
    """What one batch adds: `xy` (L₁, L₂), `xx` (L₁,), `yy` (L₂,), `null` (permutations, L₁, L₂); float64."""

    xy: Tensor
    xx: Tensor
    yy: Tensor
    null: Tensor


def gram_sums(grams: Grams, left: int, orders: Tensor) -> Sums:
    """Return the sums of one batch from Gram matrices; their stack is overwritten.

    Args:
        grams: the L₁ layers of the left side and then the L₂ of the right one, if there is one.
        left: L₁; a side without another is compared with itself.
        orders: (permutations, n), row orders of the right side.
    """
    u = u_centre_(*grams)
    alone = len(u) == left
    flat, two = u[:left].flatten(1), u if alone else u[left:]
    xy = flat @ two.flatten(1).mT
    null = [flat @ two[:, order][:, :, order].flatten(1).mT for order in orders.to(u.device)]
    if alone:
        return _on_cpu(xy, xy.diagonal(), xy.diagonal(), null)
    own = torch.linalg.vector_norm(u, dim=(-2, -1)).square()
    return _on_cpu(xy, own[:left], own[left:], null)


def u_centre_(k: Tensor, noise: Tensor) -> Tensor:
    """U-centre Gram matrices in place, without the temporaries of `u_centred`.

    >>> k = torch.tensor([[[9.0, 1.0, 0.0, 0.0], [1.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 9.0]]])
    >>> [round(value, 4) for value in u_centre_(k, torch.tensor([1e-7]))[0, 0].tolist()]
    [0.0, 0.3333, -0.1667, -0.1667]

    Args:
        k: (L, n, n), symmetric, n ≥ 4.
        noise: (L,), relative rounding: a result below 8 times it is returned as 0.
    """
    n = k.shape[-1]
    size = torch.linalg.vector_norm(k, dim=(-2, -1))
    k.diagonal(0, -2, -1).zero_()
    rows = k.sum(-1, keepdim=True).div_(n - 2)
    rows -= rows.sum(-2, keepdim=True).div_(2 * (n - 1))
    k.sub_(rows).sub_(rows.mT)
    k.diagonal(0, -2, -1).zero_()
    rounding = torch.linalg.vector_norm(k, dim=(-2, -1)) <= 8 * noise * size
    for i in rounding.nonzero().flatten().tolist():
        k[i] = 0
    return k


def features_are_cheaper(n: int, left: Sequence[int], right: Sequence[int] | None) -> bool:
    """Compare the costs of both spaces for layers of these widths, in multiplications.

    Next to the products there are passes over what they give, at about 100 multiplications an element.

    >>> features_are_cheaper(64, [512] * 150, [512] * 150), features_are_cheaper(4096, [64] * 20, [64] * 20)
    (False, True)
    """
    wide = [*left, *(right or ())]
    columns, others = sum(left), sum(left if right is None else right)
    grams = n * n * (sum(wide) + 100 * len(wide) + 2.5 * len(left) * len(left if right is None else right))
    own = 0 if right is None else sum(width * width for width in wide)
    features = (n + 100) * columns * others + n * (own + 50 * sum(wide))
    return features < grams


def feature_sums(left: Sequence[Tensor], right: Sequence[Tensor] | None, orders: Tensor) -> Sums | None:
    """Return the sums of one batch from features (n, d), without an n × n matrix.

        S(X, Y) = ‖XcᵀYc‖² - n/(n - 2) Σ a_i b_i + Σa Σb / ((n - 1)(n - 2)),   a_i = ‖xc_i‖², b_i = ‖yc_i‖²

    Returns:
        None where this form has cancelled, as a far row can bring about: take `gram_sums` then.
    """
    widest = torch.float64 if any(x.dtype == torch.float64 for x in (*left, *(right or ()))) else torch.float32
    if left[0].device.type == "mps":
        return None
    with torch.no_grad(), full_precision(left[0].device):
        for dtype in (torch.float32, torch.float64) if widest == torch.float32 else (torch.float64,):
            one = _Side.of(left, dtype, left[0].device)
            two = one if right is None else _Side.of(right, dtype, left[0].device)
            if one.cancelled() or two.cancelled():
                continue
            null = [one.sums(two, order) for order in orders.to(one.data.device)]
            xy, (xx, yy) = one.sums(two), (side.own * side.scale.square() for side in (one, two))
            if right is None and bool(xx.isfinite().all()):  # a layer that is not would spread over all of xy
                xx = yy = xy.diagonal()
            return _on_cpu(xy, xx, yy, null)
    return None


class _Side(NamedTuple):
    """The centred features of all layers beside each other, each layer divided by its size.

    Attributes:
        data: (n, Σ d), float32 or float64.
        member: (Σ d, L), 1 where a column belongs to a layer.
        lengths: (L, n), squared lengths of rows.
        scale: (L,), squared sizes; 0 for constant layers.
        own: (L,), S(X, X) before scaling.
    """

    data: Tensor
    member: Tensor
    lengths: Tensor
    scale: Tensor
    own: Tensor

    @classmethod
    def of(cls, layers: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> _Side:
        widths = [x.shape[1] for x in layers]
        data = torch.empty(len(layers[0]), sum(widths), dtype=dtype, device=device)
        parts = torch.split(data, widths, dim=1)
        scale = torch.stack([_centre_(part, x) for part, x in zip(parts, layers, strict=True)]).square()
        member = torch.eye(len(widths), dtype=torch.float64, device=device)
        member = member.repeat_interleave(torch.tensor(widths, device=device), dim=0)
        lengths = torch.stack([part.square().sum(1) for part in parts]).double()
        own = torch.stack([(part.mT @ part).double().square().sum() for part in parts])
        return cls(data, member, lengths, scale, own + _correction(lengths, lengths).diagonal())

    def cancelled(self) -> bool:
        """Return whether some layer has lost too many digits: every ‖XᵀX‖² is 1 / its effective dimensions."""
        raw = self.own - _correction(self.lengths, self.lengths).diagonal()
        return bool((self.own < KEPT[self.data.dtype] * raw).any())

    def sums(self, other: _Side, order: Tensor | None = None) -> Tensor:
        """Return S of all pairs, (L₁, L₂), with the rows of the other side in this order."""
        data, lengths = (other.data, other.lengths) if order is None else (other.data[order], other.lengths[:, order])
        found = _correction(self.lengths, lengths)
        for chunk, member in zip(torch.split(self.data, CHUNK, dim=1), torch.split(self.member, CHUNK), strict=True):
            found += member.mT @ ((chunk.mT @ data).square_().double() @ other.member)
        return found * (self.scale[:, None] * other.scale)


def _centre_(part: Tensor, x: Tensor) -> Tensor:
    """Write centred, divided features into `part`; return what they were divided by, 0 for constant ones."""
    part.copy_(x)
    mean = part.mean(0)
    part -= mean
    part -= part.mean(0)  # what rounding the first mean has left
    size = torch.linalg.vector_norm(part, dtype=torch.float64)
    offset = torch.linalg.vector_norm(mean, dtype=torch.float64) * len(part) ** 0.5
    size = size.masked_fill(size <= 4 * torch.finfo(promote(x[:0]).dtype).eps * offset, 0.0)
    part *= inverse(size)
    return cast(Tensor, size)


def _correction(a: Tensor, b: Tensor) -> Tensor:
    """Return what S has besides ‖XᵀY‖², for squared row lengths (L, n)."""
    n = a.shape[1]
    return a.sum(1)[:, None] * b.sum(1) / ((n - 1) * (n - 2)) - n / (n - 2) * (a @ b.mT)


def _on_cpu(xy: Tensor, xx: Tensor, yy: Tensor, null: list[Tensor]) -> Sums:
    empty = xy.new_empty(0, *xy.shape)
    return Sums(xy.cpu(), xx.cpu(), yy.cpu(), (torch.stack(null) if null else empty).cpu())
