"""All pairs of layers at once: sums of products of U-centered Gram matrices of one batch.

    xy_ij = <U(K_i), U(L_j)>,   xx_i = <U(K_i), U(K_i)>,   yy_j = <U(L_j), U(L_j)>

Each is n (n - 3) HSIC₁. They are added over batches without being divided by n (n - 3): that is the
weight which makes the ratio of the sums unbiased for batches of different sizes too.

The sums come from (n, n) Gram matrices (`gram_sums`) or from (d, d) products of features
(`feature_sums`), whichever is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.similarity._gram import FAR, inverse, only_rounding
from tutelage.similarity._layer_gram import Grams
from tutelage.similarity._products import may_read

# In feature space the diagonal is subtracted at the end. What remains of a squared norm,
# <U, U> / <K, K>, must be at least this for an error of 1e-6.
MIN_REMAINDER = {torch.float32: 0.1, torch.float64: 1e-8}
CHUNK = 2048  # columns of the left side whose products are formed at a time
CHUNK_BYTES = 2**24  # of float64 copies of float32 Gram matrices


class Sums(NamedTuple):
    """What one batch adds, in float64.

    Attributes:
        xy: (L₁, L₂).
        xx: (L₁,).
        yy: (L₂,).
        null: (permutations, L₁, L₂), xy with the rows of the right side permuted.
    """

    xy: Tensor
    xx: Tensor
    yy: Tensor
    null: Tensor


def gram_sums(grams: Grams, num_left: int, orders: Tensor) -> Sums:
    """Return the sums of one batch from Gram matrices; their stack is overwritten.

    Args:
        grams: those of the left layers, followed by those of the right ones. Without right layers,
            the left ones are compared with themselves.
        num_left: L₁.
        orders: (permutations, n), row orders of the right side.
    """
    u = _u_center_stack_(grams)
    left = u[:num_left]
    with_itself = len(u) == num_left
    right = u if with_itself else u[num_left:]
    xy = _products(left, right)
    # Permuting the items permutes rows and columns of a Gram matrix.
    null = [_products(left, right[:, order][:, :, order]) for order in orders.to(u.device)]
    if with_itself:
        return _on_cpu(xy, xy.diagonal(), xy.diagonal(), null)
    squared_norms = _squared_norms(u)
    return _on_cpu(xy, squared_norms[:num_left], squared_norms[num_left:], null)


def _u_center_stack_(grams: Grams) -> Tensor:
    """U-center Gram matrices in place, in float64, a few at a time.

    A result in float32 has lost eps of each of its n² numbers, which is nothing in sums over them.
    """
    stack, noise = grams
    count = max(1, CHUNK_BYTES // (8 * stack[0].numel()))
    parts = zip(torch.split(stack, count), torch.split(noise, count), strict=True)
    for part, part_noise in parts:
        if part.dtype == torch.float64:
            u_center_(part, part_noise)
        else:
            part.copy_(u_center_(part.double(), part_noise))
    return stack


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return <U(K_i), U(L_j)> of all pairs, (L₁, L₂) float64.

    Args:
        left: (L₁, n, n).
        right: (L₂, n, n).
    """
    # Flattened, it is one matrix product; of float32 a part of the columns at a time.
    a, b = left.flatten(1), right.flatten(1)
    if a.dtype == torch.float64:
        return a @ b.mT
    count = max(1, CHUNK_BYTES // (8 * (len(a) + len(b))))
    total = a.new_zeros(len(a), len(b), dtype=torch.float64)
    parts = zip(torch.split(a, count, dim=1), torch.split(b, count, dim=1), strict=True)
    for part_a, part_b in parts:
        total.addmm_(part_a.double(), part_b.double().mT)
    return total


def _squared_norms(u: Tensor) -> Tensor:
    """Return ‖U(K_i)‖² in float64, (L,)."""
    norms = u.new_empty(len(u), dtype=torch.float64)
    # One memory for all copies in float64: new ones would not fit into each other's place.
    copy = torch.empty_like(u[0], dtype=torch.float64)
    for i, k in enumerate(u):
        norms[i] = torch.linalg.vector_norm(copy.copy_(k))
    return norms.square_()


def u_center_(k: Tensor, noise: Tensor) -> Tensor:
    """U-center Gram matrices in place, without the temporaries of `u_centered`.

    >>> k = torch.tensor([[[9.0, 1, 0, 0], [1, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9]]])
    >>> [round(value, 4) for value in u_center_(k, torch.tensor([1e-7]))[0, 0].tolist()]
    [0.0, 0.3333, -0.1667, -0.1667]

    Args:
        k: (L, n, n), symmetric, n ≥ 4.
        noise: (L,), relative rounding: a result below 8 times it is returned as 0.
    """
    n = k.shape[-1]
    size = torch.linalg.vector_norm(k, dim=(-2, -1))
    k.diagonal(0, -2, -1).zero_()
    # r_i = Σ_j K_ij / (n - 2) - ΣΣK / (2 (n - 1)(n - 2)); U_ij = K_ij - r_i - r_j.
    rows = k.sum(-1, keepdim=True).div_(n - 2)
    rows -= rows.sum(-2, keepdim=True).div_(2 * (n - 1))
    k.sub_(rows).sub_(rows.mT)
    k.diagonal(0, -2, -1).zero_()
    only_rounding = torch.linalg.vector_norm(k, dim=(-2, -1)) <= 8 * noise * size
    if may_read(k):
        for i in only_rounding.nonzero().flatten().tolist():
            k[i] = 0
        return k
    return k.masked_fill_(only_rounding[:, None, None], 0.0)


def features_are_cheaper(n: int, left: Sequence[int], right: Sequence[int] | None) -> bool:
    """Compare the costs of both spaces for layers of these widths, in multiplications.

    Besides the products there are passes over the matrices: float64 Gram matrices of every layer,
    products of the features of all pairs, and the features themselves. What an element of each of
    these costs was fitted to twelve sizes on an EPYC, one thread, within 15 % of their times.

    >>> features_are_cheaper(64, [512] * 150, [512] * 150)
    False
    >>> features_are_cheaper(4096, [64] * 20, [64] * 20)
    True
    >>> [features_are_cheaper(n, [64] * 60, [64] * 60) for n in (256, 512)]
    [False, True]

    Args:
        n: items of the batch.
        left: widths of the left layers.
        right: widths of the right layers; None compares the left ones with themselves.
    """
    widths = [*left, *(right or ())]
    opposite = left if right is None else right
    pairs = len(left) * len(opposite)
    gram_cost = n * n * (sum(widths) + 1100 * len(widths) + 2.5 * pairs)
    # The products of a side with itself are among the pairs if there is no right side.
    own_products = 0 if right is None else sum(width * width for width in widths)
    cross_products = (1.4 * n + 700) * sum(left) * sum(opposite)
    feature_cost = cross_products + n * (own_products + 400 * sum(widths))
    return feature_cost < gram_cost


def feature_sums(
    left: Sequence[Tensor], right: Sequence[Tensor] | None, orders: Tensor
) -> Sums | None:
    """Return the sums of one batch from features, without an n × n matrix.

        S(X, Y) = ‖XcᵀYc‖² - n/(n - 2) Σ a_i b_i + Σa Σb / ((n - 1)(n - 2))

    with a_i = ‖xc_i‖² and b_i = ‖yc_i‖².

    Args:
        left: features (n, d) of the left layers.
        right: features of the right layers; None compares the left ones with themselves.
        orders: (permutations, n), row orders of the right side.

    Returns:
        None where the difference has too few digits, which a single far row can bring about; use
        `gram_sums` then.
    """
    device = left[0].device
    if device.type == "mps":  # no float64
        return None
    # Float32 products are tried first, and float64 ones where too many digits cancel.
    dtypes = [torch.float32, torch.float64]
    if any(x.dtype == torch.float64 for x in (*left, *(right or ()))):
        dtypes = [torch.float64]
    with torch.no_grad(), full_precision(device):
        for dtype in dtypes:
            x = _Side.of(left, dtype, device)
            y = x if right is None else _Side.of(right, dtype, device)
            if not (x.canceled() or y.canceled()):
                return _sums_of_sides(x, y, orders)
    return None


class _Side(NamedTuple):
    """The centered features of all layers of one side in one matrix, each layer over its norm.

    Attributes:
        data: (n, Σ d), float32 or float64.
        member: (Σ d, L), 1 where a column belongs to a layer.
        lengths: (L, n), squared lengths of rows.
        scale: (L,), squared norms of the layers; 0 for constant layers.
        own: (L,), S(X, X) of the divided layers.
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
        sizes = [_center_into(part, x) for part, x in zip(parts, layers, strict=True)]
        member = torch.eye(len(widths), dtype=torch.float64, device=device)
        member = member.repeat_interleave(torch.tensor(widths, device=device), dim=0)
        lengths = torch.stack([part.square().sum(1) for part in parts]).double()
        # ‖XᵀX‖² of each layer; the products are in `dtype`, their sums in float64.
        own = torch.stack([(part.mT @ part).double().square().sum() for part in parts])
        own = own + _correction(lengths, lengths).diagonal()
        return cls(data, member, lengths, torch.stack(sizes).square(), own)

    def canceled(self) -> bool:
        """Return whether the correction of some layer has canceled too many digits."""
        uncorrected = self.own - _correction(self.lengths, self.lengths).diagonal()
        return bool((self.own < MIN_REMAINDER[self.data.dtype] * uncorrected).any())

    def sums(self, right: _Side, order: Tensor | None = None) -> Tensor:
        """Return S of all pairs of layers, (L₁, L₂).

        Args:
            right: the right side.
            order: (n,), in which the rows of the right side are taken.
        """
        data = right.data if order is None else right.data[order]
        lengths = right.lengths if order is None else right.lengths[:, order]
        total = _correction(self.lengths, lengths)
        # XᵀY of all layers is (Σ d₁, Σ d₂); a chunk of columns at a time bounds its memory. The two
        # memberships then add up its squares layer by layer.
        chunks = torch.split(self.data, CHUNK, dim=1)
        members = torch.split(self.member, CHUNK)
        for chunk, member in zip(chunks, members, strict=True):
            total += member.mT @ ((chunk.mT @ data).square_().double() @ right.member)
        return total * (self.scale[:, None] * right.scale)


def _sums_of_sides(x: _Side, y: _Side, orders: Tensor) -> Sums:
    null = [x.sums(y, order) for order in orders.to(x.data.device)]
    xy = x.sums(y)
    xx = x.own * x.scale.square()
    yy = y.own * y.scale.square()
    # A side with itself has xx on the diagonal of xy, so that its own CKA is 1. Not if a layer is
    # NaN or infinite: in xy it spreads to all layers, while xx says which layer it is.
    if y is x and bool(xx.isfinite().all()):
        xx = yy = xy.diagonal()
    return _on_cpu(xy, xx, yy, null)


def _center_into(part: Tensor, x: Tensor) -> Tensor:
    """Write centered features of norm 1 into `part` and return their norm; 0 for constant ones."""
    part.copy_(x)
    mean = part.mean(0, keepdim=True)
    part -= mean
    part -= part.mean(0)  # what rounding the first mean has left
    size = torch.linalg.vector_norm(part, dtype=torch.float64)
    # As in `centered`: a column below the rounding of its mean is constant.
    eps = torch.finfo(promote(x[:0]).dtype).eps
    offset = torch.linalg.vector_norm(mean, dtype=torch.float64) * len(part) ** 0.5
    # Looking at it would make an accelerator wait for every layer.
    if not may_read(part) or not bool(size > FAR * 4 * eps * offset):
        part.masked_fill_(only_rounding(part, mean, eps), 0.0)
        size = torch.linalg.vector_norm(part, dtype=torch.float64)
    part *= inverse(size)
    return cast(Tensor, size)


def _correction(a: Tensor, b: Tensor) -> Tensor:
    """Return what S has besides ‖XᵀY‖², for squared row lengths (L, n)."""
    n = a.shape[1]
    return a.sum(1)[:, None] * b.sum(1) / ((n - 1) * (n - 2)) - n / (n - 2) * (a @ b.mT)


def _on_cpu(xy: Tensor, xx: Tensor, yy: Tensor, null: list[Tensor]) -> Sums:
    permuted = torch.stack(null) if null else xy.new_empty(0, *xy.shape)
    return Sums(xy.cpu(), xx.cpu(), yy.cpu(), permuted.cpu())
