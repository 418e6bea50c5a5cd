"""Driving a network's CKA map to a target while its outputs stay: the objective of Davari et al.

    Loss = L_behaviour + α · mean over all L² entries of log cosh(M_ij - M*_ij)

Source: M. Davari et al., ICLR 2023, section 5; official code rezazzr/xmas_cka@9849812 (no licence: nothing
copied). Differs from it: the full map is computed, not one triangle; the target takes the map's dtype; α has a
cap; a dead layer gives 0 with zero gradient instead of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from tutelage.errors import UserError
from tutelage.similarity.checks import flat_rows, one_of
from tutelage.similarity.gram import centred, full_precision, h_centred, inverse, norm, product, promote, u_centred
from tutelage.similarity.kernels import LINEAR, KernelFunction

FORMS = ("logcosh", "square")


def cka_map(layers: Sequence[Tensor], *, kernel: KernelFunction = LINEAR, estimator: str = "debiased") -> Tensor:
    """Return the CKA between all pairs of layers of one network on one mini-batch, for training.

    >>> x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    >>> [round(value, 4) for value in cka_map([x, -2 * x, x**2])[0].tolist()]
    [1.0, 1.0, 0.9916]

    Args:
        layers: L ≥ 2 outputs (n, ...) of the same n ≥ 4 items (2 if biased), floating.
        kernel: as in `cka`; the paper uses linear and `RBFKernel(t, "nonzero")`.
        estimator: `"debiased"` (the official one for linear) or `"biased"` (for RBF).

    Returns:
        (L, L), symmetric, in the layers' precision (float32 at least), differentiable. A dead layer has 0
        everywhere, with zero gradient; `CKAMatrix` says NaN.

    Raises:
        UserError: a single layer, different numbers of items, too few of them; 1-D, empty or integer layers.
    """
    one_of(estimator, ("debiased", "biased"), "the estimator of a CKA map")
    if len(layers) < 2:
        raise UserError(f"a CKA map needs at least two layers, got {len(layers)}")
    rows = [flat_rows(x, f"layer {index}") for index, x in enumerate(layers)]
    counts, least = {len(x) for x in rows}, 4 if estimator == "debiased" else 2
    if len(counts) > 1 or min(counts) < least:
        raise UserError(f"all layers must see the same items, at least {least} of them, got {[len(x) for x in rows]}")
    with full_precision(rows[0].device):
        grams = torch.stack([_centred_kernel(promote(x), kernel, estimator) for x in rows])
        unit = (grams * inverse(norm(grams))).flatten(1)
        return unit @ unit.mT


def map_loss(found: Tensor, target: Tensor, *, form: str = "logcosh") -> Tensor:
    """Return how far a CKA map is from its target: the mean of log cosh(found - target), or of its square.

    >>> round(map_loss(torch.eye(2), torch.ones(2, 2)).item(), 4)
    0.2169

    Args:
        found: (L, L), of `cka_map`.
        target: (L, L), symmetric, within [-1, 1]; takes the dtype of `found`.
        form: `"logcosh"` or `"square"`.

    Returns:
        0-d, differentiable.

    Raises:
        UserError: the shapes differ; the target is asymmetric or leaves [-1, 1].
    """
    one_of(form, FORMS, "the form of the map loss")
    if found.shape != target.shape:
        raise UserError(
            f"the CKA map has shape {tuple(found.shape)}, its target {tuple(target.shape)}; give one for it"
        )
    if not torch.equal(target, target.mT) or not bool((target.abs() <= 1).all()):
        raise UserError("a target CKA map is symmetric with entries between -1 and 1")
    gap = found - target.to(found)
    if form == "square":
        return gap.square().mean()
    size = gap.abs()
    return (size + torch.log1p((-2 * size).exp()) - math.log(2)).mean()


def behaviour_loss(logits: Tensor, reference: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return KL(softmax(reference/τ) ‖ softmax(logits/τ)), the mean over the batch, without a factor τ².

    >>> round(behaviour_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item(), 3)
    0.693

    Args:
        logits: (n, classes), of the network that is driven.
        reference: (n, classes), of a frozen copy of the original.
        temperature: τ; the official 0.1 makes decisions, not probabilities, what is kept.

    Returns:
        0-d, differentiable.
    """
    with full_precision(logits.device):
        told = log_softmax(promote(reference) / temperature, dim=-1)
        said = log_softmax(promote(logits) / temperature, dim=-1)
        return kl_div(said, told, reduction="batchmean", log_target=True)


def next_map_weight(
    alpha: float, accuracy: float, reference: float, *, tolerance: float = 1.0, factor: float = 0.8, cap: float = 1e5
) -> float:
    """Return the weight α of the map term after a validation pass: less if accuracy has suffered, else more.

    >>> next_map_weight(500.0, accuracy=84.0, reference=86.0), next_map_weight(500.0, accuracy=85.5, reference=86.0)
    (400.0, 625.0)

    Args:
        alpha: the weight so far; the official start is 500.
        accuracy: of the driven network, in per cent.
        reference: of the original network.
        tolerance: points of accuracy that may be lost.
        factor: α is multiplied by it, or divided.
        cap: the largest α; the official code has none.
    """
    return alpha * factor if reference - accuracy > tolerance else min(alpha / factor, cap)


def _centred_kernel(x: Tensor, kernel: KernelFunction, estimator: str) -> Tensor:
    features = kernel.features(x)
    if features is None:
        k = kernel.shifted(x)
        return u_centred(k) if estimator == "debiased" else h_centred(k)
    side = centred(features)
    return u_centred(product(side, side)) if estimator == "debiased" else product(side, side)
