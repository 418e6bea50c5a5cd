"""The objective of Davari et al.: change a network's CKA map to a target, keep its outputs.

    Loss = L_behavior + α · mean over all L² entries of log cosh(M_ij - M*_ij)

Source: M. Davari et al., ICLR 2023, section 5; official code rezazzr/xmas_cka@9849812 (no license:
nothing copied).

Differs from the official code: the full map is computed, not one triangle; the target takes the
map's dtype; α has a cap; a constant layer gives 0 with zero gradient instead of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.similarity._checks import (
    as_same_dtype,
    check_choice,
    check_list,
    check_tensors,
    flat_rows,
    widest,
)
from tutelage.similarity._gram import centered, h_centered, inverse, norm, product, u_centered
from tutelage.similarity._products import gram
from tutelage.similarity.alignment import Estimator
from tutelage.similarity.kernels import LINEAR, KernelFunction

Form = Literal["logcosh", "square"]


def cka_map(
    layers: Sequence[Tensor],
    *,
    kernel: KernelFunction = LINEAR,
    estimator: Estimator = "debiased",
) -> Tensor:
    """Return the CKA between all pairs of layers of one network on one mini-batch, for training.

    >>> x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    >>> [round(value, 4) for value in cka_map([x, -2 * x, x**2])[0].tolist()]
    [1.0, 1.0, 0.9916]

    Args:
        layers: L ≥ 2 outputs (n, ...) of the same n ≥ 4 items (2 if biased), floating.
        kernel: as in `cka`; the paper uses linear and `RBFKernel(t, "nonzero")`.
        estimator: `"debiased"` (the official one for linear) or `"biased"` (for RBF).

    Returns:
        (L, L), symmetric, in the layers' precision (float32 at least), differentiable. A constant
        layer has 0 everywhere, with zero gradient; `CKAMatrix` gives NaN for it.

    Raises:
        UserError: If there is a single layer, if layers have different numbers of items or too few
            of them, or if they are 1-D, empty or integer.
    """
    check_choice(estimator, Estimator, "the estimator of a CKA map")
    check_list("a CKA map", layers)
    if len(layers) < 2:
        raise UserError(f"a CKA map needs at least two layers, got {len(layers)}")
    rows = [flat_rows(x, f"layer {index}") for index, x in enumerate(layers)]
    counts = [len(x) for x in rows]
    min_rows = 4 if estimator == "debiased" else 2
    if len(set(counts)) > 1 or min(counts) < min_rows:
        raise UserError(
            f"all layers must see the same items, at least {min_rows} of them, got {counts}"
        )
    with full_precision(rows[0].device):
        dtype = widest(rows)
        kernels = torch.stack([_centered_kernel(x.to(dtype), kernel, estimator) for x in rows])
        unit_kernels = (kernels * inverse(norm(kernels))).flatten(1)
        return gram(unit_kernels)


def map_loss(values: Tensor, target: Tensor, *, form: Form = "logcosh") -> Tensor:
    """Return how far a CKA map is from its target: the mean of log cosh(M - M*), or of its square.

    >>> round(map_loss(torch.eye(2), torch.ones(2, 2)).item(), 4)
    0.2169

    Args:
        values: (L, L), of `cka_map`.
        target: (L, L), symmetric, within [-1, 1]; takes the dtype of `values`.
        form: `"logcosh"` or `"square"`.

    Returns:
        0-d, differentiable.

    Raises:
        UserError: If the shapes differ, or if the target is asymmetric or leaves [-1, 1].
    """
    check_choice(form, Form, "the form of the map loss")
    check_tensors("the map loss", values, target)
    if not (values.is_floating_point() and target.is_floating_point()) or values.ndim != 2:
        raise UserError(
            f"a CKA map is a floating-point (L, L), got {values.dtype} {tuple(values.shape)} and "
            f"{target.dtype} {tuple(target.shape)}"
        )
    if values.shape != target.shape:
        raise UserError(
            f"the CKA map has shape {tuple(values.shape)}, its target {tuple(target.shape)}; give "
            "a target of the map's shape"
        )
    if not torch.equal(target, target.mT) or not bool((target.abs() <= 1).all()):
        raise UserError("a target CKA map is symmetric with entries between -1 and 1")
    gap = values - target.to(values)
    if form == "square":
        return gap.square().mean()
    # log cosh(g) = |g| + log(1 + exp(-2|g|)) - log 2, which cannot overflow.
    size = gap.abs()
    return (size + torch.log1p((-2 * size).exp()) - math.log(2)).mean()


def behavior_loss(logits: Tensor, reference: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return KL(softmax(reference/τ) ‖ softmax(logits/τ)), the mean over the batch.

    There is no factor τ².

    >>> round(behavior_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item(), 3)
    0.693

    Args:
        logits: (n, classes), of the network that is trained.
        reference: (n, classes), of a frozen copy of the original network.
        temperature: τ; the official 0.1 preserves decisions rather than probabilities.

    Returns:
        0-d, differentiable.

    Raises:
        UserError: If the logits are not floating-point (n, classes) of one shape, hold nothing, or
            the temperature is not positive.
    """
    check_tensors("the behavior loss", logits, reference)
    if logits.shape != reference.shape or logits.ndim != 2 or not logits.numel():
        raise UserError(
            "the behavior loss needs logits (n, classes) of one shape, got "
            f"{tuple(logits.shape)} and {tuple(reference.shape)}; give both the same batch"
        )
    if not (logits.is_floating_point() and reference.is_floating_point()):
        raise UserError(
            f"the behavior loss needs floating-point logits, got {logits.dtype} and "
            f"{reference.dtype}; use .float()"
        )
    if not 0 < temperature < math.inf:
        raise UserError(
            f"the temperature of the behavior loss is positive and finite, got {temperature}"
        )
    with full_precision(logits.device):
        logits, reference = as_same_dtype(logits, reference)
        reference_log_probs = log_softmax(reference / temperature, dim=-1)
        log_probs = log_softmax(logits / temperature, dim=-1)
        return kl_div(log_probs, reference_log_probs, reduction="batchmean", log_target=True)


def next_map_weight(
    alpha: float,
    accuracy: float,
    reference: float,
    *,
    tolerance: float = 1.0,
    factor: float = 0.8,
    cap: float = 1e5,
) -> float:
    """Return the weight α of the map term after a validation pass.

    It is smaller if accuracy has dropped, and larger otherwise.

    >>> next_map_weight(500.0, accuracy=84.0, reference=86.0)
    400.0
    >>> next_map_weight(500.0, accuracy=85.5, reference=86.0)
    625.0

    Args:
        alpha: the weight so far; the official start is 500.
        accuracy: of the trained network, in percent.
        reference: of the original network.
        tolerance: points of accuracy that may be lost.
        factor: α is multiplied by it, or divided.
        cap: the largest α; the official code has none.

    Raises:
        UserError: If a number is NaN or infinite, or the factor or α is not positive.
    """
    numbers = (alpha, accuracy, reference, tolerance, factor)
    if not all(map(math.isfinite, numbers)) or not factor > 0 or not alpha > 0:
        raise UserError(
            "the weight of the map term needs finite numbers, a positive weight and a positive "
            f"factor, got alpha={alpha}, accuracy={accuracy}, reference={reference}, "
            f"tolerance={tolerance} and factor={factor}"
        )
    if reference - accuracy > tolerance:
        return alpha * factor
    return min(alpha / factor, cap)


def _centered_kernel(x: Tensor, kernel: KernelFunction, estimator: Estimator) -> Tensor:
    features = kernel.features(x)
    if features is None:
        k = kernel.shifted(x)
        return u_centered(k) if estimator == "debiased" else h_centered(k)
    factor = centered(features)
    k = product(factor, factor)
    return u_centered(k) if estimator == "debiased" else k
