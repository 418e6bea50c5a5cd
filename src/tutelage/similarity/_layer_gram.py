"""From the output of a layer to its Gram matrix at once, so that no features have to be stored.

Narrow layers are centered first: that is cheap while they are in the processor's cache. The Gram
matrix of a wide layer is formed from its raw features. Its error in float32 grows with

    ρ = max K_ii / (mean K_ii - mean K)

the largest squared row over the mean squared centered row, as about 1e-7 ρ. So a wide layer is
centered, chunk by chunk, and its product formed again, only where ρ is above 8. That keeps the CKA
of float32 features within millionths of float64 at every offset, without a copy of the features.

On an accelerator no value is looked at, which would make the host wait for every layer: there all
layers are centered, and brought into range by their largest entry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.similarity._checks import flat_rows
from tutelage.similarity._gram import FAR, centered, inverse
from tutelage.similarity._products import may_read, sum_dtype

MAX_RHO = 8.0  # above it, a raw float32 Gram has lost too many digits to the common offset
MIN_SQUARED_LENGTH = 1e-25  # below it, products may have underflowed in float32
EPS32 = torch.finfo(torch.float32).eps
EPS64 = torch.finfo(torch.float64).eps
CHUNK = 2048  # columns that are centered at a time
NARROW = 8192  # columns; centering so many costs less than a product that is often formed again


class Grams(NamedTuple):
    """Gram matrices of several layers.

    Attributes:
        stack: (L, n, n), float32 as long as every layer is and its Gram is in range, else float64.
        noise: (L,), relative rounding of each.
    """

    stack: Tensor
    noise: Tensor


def gram_of(features: Tensor) -> Tensor:
    """Return the Gram matrix of one layer's output, for `CKAMatrix.update_grams`.

    It is K or the centered HKH, depending on the features (see the module's docstring); every
    centering that follows gives the same for both. Computed outside autocast, without gradient.

    >>> gram_of(torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])).tolist()
    [[5.0, -1.0, -4.0], [-1.0, 1.0, 0.0], [-4.0, 0.0, 4.0]]

    Args:
        features: (n, ...), floating; further dimensions are flattened.

    Returns:
        (n, n) on the same device: float32 for half and single precision, float64 for double and, on
        the CPU, for single precision whose Gram would leave float32's range. Constant features
        give zeros.

    Raises:
        UserError: If features are 1-D, empty or integer; on the CPU also if they are NaN or
            infinite. On an accelerator such features give NaN, which `CKAMatrix` refuses.
    """
    x = flat_rows(features, "the output").detach()
    with torch.no_grad(), full_precision(x.device):
        x = promote(x)
        if not may_read(x):
            return _unread_gram(x)
        k, offset = _first_gram(x)
        if bool(_needs_centering(k, offset, torch.finfo(x.dtype).eps)):
            k = _centered_gram(x)
    if k.isnan().any():
        raise UserError(
            "the output holds NaN or infinity; look for the layer or the input that made it"
        )
    return k


def layer_grams(features: Sequence[Tensor]) -> Grams:
    """Return the Gram matrices of all layers, each as by `gram_of`; NaN where one is not finite.

    Args:
        features: (n, d) each, floating, on any devices; the stack is on the first one's device.
    """
    grams = _empty(features)
    with torch.no_grad(), ExitStack() as contexts:
        for device in {x.device for x in features}:
            contexts.enter_context(full_precision(device))
        if not may_read(grams.stack):
            for i, x in enumerate(features):
                grams.stack[i].copy_(_unread_gram(promote(x)))
            return grams
        offsets = torch.empty(len(features), dtype=torch.float64, device=grams.stack.device)
        for i, x in enumerate(features):
            k, offset = _first_gram(promote(x))
            grams.stack[i].copy_(k)
            offsets[i].copy_(offset)
        # All layers are checked at once: on a GPU, every look at a value waits for the device.
        again = _needs_centering(grams.stack, offsets, grams.noise)
        stack, noise = grams
        for i in again.nonzero().flatten().tolist():
            k = _centered_gram(promote(features[i]))
            if k.dtype != stack.dtype:  # out of float32's range; many layers of float32 take half
                stack = stack.double()
            stack[i] = k
    return Grams(stack, noise)


def stacked(matrices: Sequence[Tensor]) -> Grams:
    """Return Gram matrices (n, n) that exist already as one stack."""
    grams = _empty(matrices)
    for i, k in enumerate(matrices):
        grams.stack[i].copy_(k)
    return grams


def _first_gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Gram matrix and the squared norm of the mean that was subtracted.

    The features are centered if they are narrow; otherwise the squared norm is given as -1.
    """
    if x.shape[1] > NARROW:
        return x @ x.mT, x.new_full((), -1.0)
    mean = x.mean(0)
    x = x - mean
    return x @ x.mT, mean.dot(mean)


def _needs_centering(k: Tensor, offset: Tensor, noise: Tensor | float) -> Tensor:
    """Return which Gram matrices must be formed with more care, or hold NaN or infinity.

    Args:
        k: (..., n, n), of `_first_gram`.
        offset: (...,), of `_first_gram`.
        noise: relative rounding of the features.
    """
    lengths = k.diagonal(0, -2, -1)
    mean = lengths.mean(-1)
    raw = offset < 0
    # Negated comparisons, so that NaN counts as true.
    far = raw & ~(lengths.amax(-1) <= MAX_RHO * (mean - k.mean((-2, -1))))
    mostly_rounding = mean <= (FAR * 4 * noise) ** 2 * offset
    in_range = (mean > MIN_SQUARED_LENGTH) & mean.isfinite()
    return far | mostly_rounding | ~in_range


def _centered_gram(x: Tensor) -> Tensor:
    """Return the Gram matrix of centered features; 0 for constant ones, NaN for NaN or infinity."""
    k = _centered_product(x)
    trace = float(k.trace())
    size = 1.0
    if not MIN_SQUARED_LENGTH < trace < math.inf:
        # Squares left float32's range, or x is zero or not finite: divide by the largest entry.
        size = float(x.abs().amax())
        if not 0 < size < math.inf:
            return k.fill_(0.0 if size == 0 else math.nan)
        k = _centered_product(x / size)
    return k if size == 1.0 else k.to(sum_dtype(x.device)) * size**2


def _unread_gram(x: Tensor) -> Tensor:
    """Return what `_centered_gram` does, in the dtype of x, without looking at a value."""
    size = x.abs().amax()
    # NaN and infinity stay: 0 · inf is NaN.
    k = _centered_product(x * inverse(size, floor=torch.finfo(x.dtype).tiny))
    return k.mul_(size).mul_(size)


def _centered_product(x: Tensor) -> Tensor:
    """Return the Gram matrix of centered features, without columns of nothing but rounding.

    A chunk of columns is centered at a time, so that no copy of all features is made.
    """
    k = x.new_zeros(len(x), len(x))
    for chunk in torch.split(x, CHUNK, dim=1):
        data = centered(chunk).data
        k.addmm_(data, data.mT)
    return k


def _empty(layers: Sequence[Tensor]) -> Grams:
    """Return memory for one (n, n) Gram matrix per layer, on a device that has float64."""
    device = torch.device("cpu") if layers[0].device.type == "mps" else layers[0].device
    n = len(layers[0])
    is_double = [x.dtype == torch.float64 for x in layers]
    dtype = torch.float64 if any(is_double) else torch.float32
    stack = torch.empty(len(layers), n, n, dtype=dtype, device=device)
    noise = [EPS64 if double else EPS32 for double in is_double]
    return Grams(stack, torch.tensor(noise, dtype=torch.float64, device=device))
