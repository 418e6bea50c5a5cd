"""Gradients of the fused alignment, and the scaling of its Gram matrices.

No Gram matrix is used at its own scale: K is divided by its trace and then by its norm, and the
factor ("unit") that was taken out is carried along for the gradient. Sums over squares of Gram
entries are fourth powers of the features; they would leave float32's range at scales of 1e±10.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor

MIN_NORM = 1e-6  # a Gram of trace 1 has norm ≥ 1/√n, so this floor only acts on zero matrices
SMALLEST = 1e-30  # traces below count as zero; 1 / (MIN_NORM · SMALLEST) still fits in float32

Values = tuple[Tensor | None, Tensor | None]
Pair = tuple[Tensor, Tensor]


class Slope(NamedTuple):
    """Derivatives of both alignments for one side, here y.

        d intra = `intra` @ y
        d inter = `own` @ y + `cross` @ x + `column`

    Attributes:
        intra: (..., m, m), symmetric; None without intra.
        own: (..., m, m), symmetric; None without inter.
        cross: (..., m, n); None without inter.
        column: (..., m, q), through the lengths of the columns; None with plain Grams.
    """

    intra: Tensor | None = None
    own: Tensor | None = None
    cross: Tensor | None = None
    column: Tensor | None = None

    def pull(self, y: Tensor, x: Tensor | None, grads: Values) -> Tensor:
        """Return the gradient for y.

        Args:
            y: the side that the slope is for.
            x: the opposite side; may be None without inter.
            grads: gradients of the loss for (intra, inter).
        """
        d_intra, d_inter = grads
        if self.own is None or self.cross is None or x is None or d_inter is None:
            return (cast(Tensor, self.intra) * cast(Tensor, d_intra)) @ y
        # Intra and inter share the product with y: their (m, m) matrices are added first.
        own = self.own * d_inter
        if self.intra is not None and d_intra is not None:
            own.addcmul_(self.intra, d_intra)
        grad = (own @ y).add_((self.cross * d_inter) @ x)
        return grad if self.column is None else grad.addcmul_(self.column, d_inter)


def unit_trace(gram: Tensor) -> Pair:
    """Return a Gram matrix divided by its trace, in place, and 1 / its trace.

    The trace is cheap and keeps the squares in `norm` in range. A zero matrix stays zero.
    """
    trace = gram.trace() if gram.ndim == 2 else as_matrices(gram.diagonal(0, -2, -1).sum(-1))
    unit = trace.clamp_min_(SMALLEST).reciprocal_()
    return gram.mul_(unit), unit


def as_matrices(numbers: Tensor) -> Tensor:
    """Return numbers (...) as (..., 1, 1), to be multiplied with a stack of matrices."""
    return numbers[..., None, None]
