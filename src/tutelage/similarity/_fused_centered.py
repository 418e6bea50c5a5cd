"""Centered alignment of row-scaled kernels, with a hand-written gradient.

    A = <K, L> / (‖K‖ ‖L‖),   K = (H u) (H x)ᵀ,   u: x with rows of length 1,   H = I - 11ᵀ/N

and L likewise of y. As in `_fused.py` the time goes into the number of operators: autograd takes
three times as many as the value and its derivative need. This form is for ordinary features: their
lengths are in range, and they vary by more than the rounding of their mean. What is not ordinary,
and what lies on a device where looking would make it wait, goes through
`_alignment_by_autograd.py`, which has a rule for each such case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision
from tutelage.similarity._gram import FAR
from tutelage.similarity._once import once
from tutelage.similarity._products import may_read

SHORTEST, LONGEST = 1e-12, 1e12  # rows whose squares, and those of their products, are in range
MAX_PRODUCTS = 2**22  # up to here N × N matrices are cheaper than further operators


class _Side(NamedTuple):
    """One side of the alignment, here x.

    Attributes:
        unit: (N, P), u.
        lengths: (N, 1), of the rows of x.
        centered_unit: (N, P), H u.
        centered: (N, P), H x.
    """

    unit: Tensor
    lengths: Tensor
    centered_unit: Tensor
    centered: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Side:
        lengths = cast(Tensor, torch.linalg.vector_norm(x, dim=1, keepdim=True))
        unit = x / lengths
        return cls(unit, lengths, unit - unit.mean(0), x - x.mean(0))

    def sizes(self) -> tuple[Tensor, ...]:
        """Return what `is_ordinary` looks at: scalars on the device."""
        shortest, longest = self.lengths.aminmax()
        return shortest, longest, self.centered_unit.norm(), self.centered.norm()

    def pull(self, slope: Tensor) -> Tensor:
        """Return the gradient for x.

        Args:
            slope: derivative for K, (N, N), whose rows and columns sum to 0.
        """
        grad = slope @ self.centered
        # From u = x / lengths to x: the part along each row does not change u.
        radial = (grad * self.unit).sum(1, keepdim=True)
        grad.addcmul_(self.unit, radial, value=-1.0).div_(self.lengths)
        return grad.addmm_(slope.mT, self.centered_unit)


class _CenteredAlignment(Function):
    """The alignment of two sides that are ordinary."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, side_x: _Side, side_y: _Side) -> Tensor:
        """Return the value, 0-d.

        Args:
            ctx: of autograd.
            x: (N, P).
            y: (N, P').
            side_x: what was made of x.
            side_y: what was made of y.
        """
        kernel_x = side_x.centered_unit @ side_x.centered.mT
        kernel_y = side_y.centered_unit @ side_y.centered.mT
        size_x = kernel_x.norm()
        size_y = kernel_y.norm()
        kernel_x.div_(size_x)
        kernel_y.div_(size_y)
        value = torch.dot(kernel_x.view(-1), kernel_y.view(-1))
        saved: list[Tensor | None] = [x, y]
        for index, (side, kernel, other, size) in enumerate(
            ((side_x, kernel_x, kernel_y, size_x), (side_y, kernel_y, kernel_x, size_y))
        ):
            if ctx.needs_input_grad[index]:
                slope = torch.addcmul(other, kernel, value, value=-1.0).div_(size)
                saved += [slope, *side]
            else:
                saved += [None] * 5
        ctx.save_for_backward(*saved)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Pull the gradient of the value back to x and y."""
        x, y, *saved = ctx.saved_tensors
        grads: list[Tensor | None] = [None, None]
        # A graph of the gradient may be wanted, which this gradient has not.
        with torch.no_grad(), full_precision(grad.device):
            for index in (0, 1):
                if ctx.needs_input_grad[index]:
                    slope, *side = saved[5 * index : 5 * index + 5]
                    grads[index] = _Side(*side).pull(slope * grad)
        return once(grads[0], x, y), once(grads[1], x, y), None, None


def centered_rows(x: Tensor, y: Tensor, in_gram_space: bool = True) -> Tensor | None:
    """Return the centered alignment of row-scaled kernels, or None where it needs more care.

    >>> centered_rows(torch.zeros(3, 2), torch.ones(3, 2)) is None
    True

    Args:
        x: (N, P), float32 or float64.
        y: (N, P'), of the same dtype.
        in_gram_space: whether N × N products cost less than P × P ones.
    """
    products = x.shape[-2] ** 2 * (x.shape[-1] + y.shape[-1])
    too_large = not in_gram_space and products > MAX_PRODUCTS
    if x.ndim != 2 or too_large or not may_read(x) or torch.compiler.is_compiling():
        return None
    with torch.no_grad():
        sides = _Side.of(x), _Side.of(y)
        if not _are_ordinary(sides):
            return None
    return cast(Tensor, _CenteredAlignment.apply(x, y, *sides))


def _are_ordinary(sides: Sequence[_Side]) -> bool:
    """Return whether all lengths are in range and what varies is more than rounding.

    `_gram.centered` compares with the norm of the mean; that of the longest row is no smaller.
    """
    lengths = sides[0].lengths
    numbers = torch.stack([size for side in sides for size in side.sizes()]).tolist()
    limit = FAR * 4 * torch.finfo(lengths.dtype).eps * len(lengths) ** 0.5
    for shortest, longest, unit_size, size in (numbers[:4], numbers[4:]):
        # Written so that NaN is not ordinary.
        if not (shortest > SHORTEST and longest < LONGEST):
            return False
        if not (unit_size > limit and size > limit * longest):
            return False
    return True
