"""From the output of a layer to its Gram matrix at once, so that no feature has to be kept.

The Gram is formed from the raw features first. Its error in float32 grows with

    ρ = max K_ii / (mean K_ii - mean K)        the largest squared row over the mean squared centred one

as about 1e-7 ρ, so features are centred, and the product done again, only where ρ is above 8. That keeps the
CKA of float32 features within 1e-6 of float64 at every offset and costs nothing for most layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.similarity.checks import exact, flat_rows
from tutelage.similarity.gram import full_precision, promote

RHO = 8.0  # above it a raw float32 Gram has lost too much to the common offset
FAINT = 1e-25  # squared lengths below it may have lost products to float32's underflow
CHUNK = 2048  # columns that are centred at a time


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
        k = x @ x.mT
        k = _centred_gram(x) if bool(_unsettled(k)) else k
    if k.isnan().any():
        raise UserError("the output holds NaN or infinity; look for the layer or the input that made it")
    return k


def layer_grams(features: Sequence[Tensor]) -> Grams:
    """Return the Gram matrices of all layers of one side, each as `gram_of` gives it; NaN where a layer is not finite.

    Args:
        features: (n, d) each, floating, of any devices; the stack lies where the first one does.
    """
    first = features[0]
    n, device = len(first), first.device
    with torch.no_grad(), full_precision(device):
        raw = torch.empty(len(features), n, n, device=device, dtype=_widest(features))
        for into, x in zip(raw, features, strict=True):
            _put_gram(promote(x), into)
        again = _unsettled(raw).nonzero().flatten().tolist()
        stack = raw.to(_home(device), exact(_home(device)))
        for i in again:
            stack[i] = _centred_gram(promote(features[i]))
    return Grams(stack, _noise(features, stack))


def stacked(grams: Sequence[Tensor]) -> Grams:
    """Return given Gram matrices (n, n) as one stack."""
    home = _home(grams[0].device)
    stack = torch.stack([gram.detach().to(home, exact(home)) for gram in grams])
    return Grams(stack, _noise(grams, stack))


def _put_gram(x: Tensor, into: Tensor) -> None:
    with full_precision(x.device):
        if (x.device, x.dtype) == (into.device, into.dtype):
            torch.mm(x, x.mT, out=into)
        else:
            into.copy_(x @ x.mT)


def _unsettled(k: Tensor) -> Tensor:
    """Return for each (..., n, n) whether features must be centred or rescaled, or hold NaN or infinity."""
    lengths = k.diagonal(0, -2, -1)
    mean = lengths.mean(-1)
    spread = mean - k.mean((-2, -1))
    return ~((lengths.amax(-1) <= RHO * spread) & (mean > FAINT) & spread.isfinite())


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


def _widest(features: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in features) else torch.float32


def _home(device: torch.device) -> torch.device:
    """Return where float64 sums can be formed: here, or on the CPU."""
    return torch.device("cpu") if device.type == "mps" else device


def _noise(tensors: Sequence[Tensor], stack: Tensor) -> Tensor:
    return stack.new_tensor([torch.finfo(promote(x[:0]).dtype).eps for x in tensors])
