"""From the output of a layer to its Gram matrix at once, so that no feature has to be kept.

Narrow layers are centred first: that is cheap while they are in the cache. The Gram of a wide layer is formed
from its raw features. Its error in float32 grows with

    ρ = max K_ii / (mean K_ii - mean K)        the largest squared row over the mean squared centred one

as about 1e-7 ρ, so a wide layer is centred, chunk by chunk, and the product done again, only where ρ is above
8. That keeps the CKA of float32 features within 1e-6 of float64 at every offset, without a copy of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.checks import exact, flat_rows
from tutelage.similarity.gram import full_precision, promote

RHO = 8.0  # above it a raw float32 Gram has lost too much to the common offset
FAINT = 1e-25  # squared lengths below it may have lost products to float32's underflow
EPS32, EPS64 = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
CHUNK = 2048  # columns that are centred at a time; a layer of no more is narrow


class Grams(NamedTuple):
    """Gram matrices of layers: `stack` (L, n, n) in float64 and the relative rounding `noise` (L,) of each."""

    stack: Tensor
    noise: Tensor


def gram_of(features: Tensor) -> Tensor:
    """Return the Gram matrix of one layer's output, for `CKAMatrix.update_grams`.

    Every centring that follows gives the same for K and for the centred HKH; which of the two this is depends
    on the features (see the module's docstring). Outside autocast, without gradient.

    >>> gram_of(torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])).tolist()
    [[5.0, -1.0, -4.0], [-1.0, 1.0, 0.0], [-4.0, 0.0, 4.0]]

    Args:
        features: (n, ...), floating; further dimensions are flattened.

    Returns:
        (n, n) on the same device: float32 for half and single precision, float64 for double and for single
        precision whose Gram would leave float32's range. Constant features give zeros.

    Raises:
        UserError: 1-D, empty, integer, NaN or infinite features.
    """
    x = flat_rows(features, "the output").detach()
    with torch.no_grad(), full_precision(x.device):
        x = promote(x)
        k, offset = _first_gram(x)
        if bool(_unsettled(k, offset, torch.finfo(x.dtype).eps)):
            k = _centred_gram(x)
    if k.isnan().any():
        raise UserError("the output holds NaN or infinity; look for the layer or the input that made it")
    return k


def layer_grams(features: Sequence[Tensor]) -> Grams:
    """Return the Gram matrices of all layers, each as `gram_of` gives it; NaN where a layer is not finite.

    Args:
        features: (n, d) each, floating, of any devices; the stack lies where the first one does.
    """
    found = _empty(features)
    with torch.no_grad(), ExitStack() as contexts:
        for device in {x.device for x in features}:
            contexts.enter_context(full_precision(device))
        offsets = torch.empty(len(features), dtype=torch.float64, device=found.stack.device)
        for into, offset, x in zip(found.stack, offsets, features, strict=True):
            k, squared = _first_gram(promote(x))
            into.copy_(k)
            offset.copy_(squared)
        again = _unsettled(found.stack, offsets, found.noise)
        for i in again.nonzero().flatten().tolist():
            found.stack[i] = _centred_gram(promote(features[i]))
    return found


def stacked(grams: Sequence[Tensor]) -> Grams:
    """Return given Gram matrices (n, n) as one stack."""
    found = _empty(grams)
    for into, k in zip(found.stack, grams, strict=True):
        into.copy_(k)
    return found


def _first_gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix, of centred features if they are few, and ‖mean‖² of these, -1 for raw ones."""
    if x.shape[1] > CHUNK:
        return x @ x.mT, x.new_full((), -1.0)
    mean = x.mean(0)
    x = x - mean
    return x @ x.mT, mean.dot(mean)


def _unsettled(k: Tensor, offset: Tensor, noise: Tensor | float) -> Tensor:
    """Return which (..., n, n) must be done with more care, or hold NaN or infinity."""
    lengths = k.diagonal(0, -2, -1)
    mean = lengths.mean(-1)
    far = (offset < 0) & ~(lengths.amax(-1) <= RHO * (mean - k.mean((-2, -1))))
    return far | (mean <= (4 * noise) ** 2 * offset) | ~((mean > FAINT) & mean.isfinite())


def _centred_gram(x: Tensor) -> Tensor:
    """Return the Gram matrix of centred features; 0 for constant ones, NaN for NaN or infinity."""
    k, offset = _centred_product(x)
    trace, size = float(k.trace()), 1.0
    if not FAINT < trace < float("inf"):  # outside of what float32's squares can hold, or zero, or not finite
        size = float(x.abs().amax())
        if not 0 < size < float("inf"):
            return k.fill_(0.0 if size == 0 else float("nan"))
        k, offset = _centred_product(x / size)
        trace = float(k.trace())
    if trace <= (4 * torch.finfo(x.dtype).eps) ** 2 * len(x) * float(offset):
        return k.zero_()
    return k if size == 1.0 else k.to(exact(x.device)) * size**2


def _centred_product(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gram matrix of centred features, a chunk of columns at a time, and ‖mean‖²."""
    parts = torch.split(x, CHUNK, dim=1)
    mean = parts[0].mean(0)
    part = parts[0] - mean
    k, offset = part @ part.mT, mean.square().sum()
    for chunk in parts[1:]:
        mean = chunk.mean(0)
        part = chunk - mean
        k.addmm_(part, part.mT)
        offset += mean.square().sum()
    return k, offset


def _empty(layers: Sequence[Tensor]) -> Grams:
    """Return room for one Gram matrix of each, where float64 sums can be formed: at the first one, or on the CPU."""
    device = torch.device("cpu") if layers[0].device.type == "mps" else layers[0].device
    n = len(layers[0])
    noise = [EPS64 if x.dtype == torch.float64 else EPS32 for x in layers]
    stack = torch.empty(len(layers), n, n, dtype=torch.float64, device=device)
    return Grams(stack, stack.new_tensor(noise))
