"""Temperature scaling: one number after training, so that a confidence is a probability.

Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The
logits are divided by the temperature T ≥ 0 that minimizes the negative log-likelihood of validation
data. Decisions stay as they are.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tutelage.core._arguments import check_kind, check_positive_number
from tutelage.core.modes import eval_mode
from tutelage.core.taps import call
from tutelage.errors import UserError, reason

LOWEST, HIGHEST = 0.02, 50.0
PRECISION = 1e-4  # of log T
FEW = 100  # items
GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature at which the labels are most likely.

    A golden-section search on log T: the likelihood has one maximum, since it is concave in 1/T.

    >>> confident = torch.tensor([[4.0, 0.0]]).repeat(400, 1)  # and one label in four is the other
    >>> round(fit_temperature(confident, torch.tensor([0, 0, 0, 1] * 100)), 2)  # 4 / log 3
    3.64

    Args:
        logits: (N, C).
        labels: (N,) int64; below 0 is none.

    Returns:
        T, from 0.02 to 50. It is 1, with a warning, where the labels do not say which one is right:
        if all items are classified correctly, or no logits differ.

    Raises:
        UserError: If shapes, dtypes or labels do not fit, no item has a label, or logits are NaN or
            infinite.
    """
    logits, labels = _labeled(logits, labels)
    own = logits.gather(1, labels[:, None])
    if bool((own >= logits).all()):
        what = "all items correctly" if bool((own > logits).any()) else "no item"
        warnings.warn(
            f"the network classifies {what}, so its {len(labels)} labels fit no temperature; it "
            "stays at 1",
            stacklevel=2,
        )
        return 1.0
    if len(labels) < FEW:
        warnings.warn(
            f"the temperature is fitted on {len(labels)} items, so it is uncertain; "
            f"validate on {FEW} or more",
            stacklevel=2,
        )

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits * math.exp(-log_temperature), labels))

    low, high = math.log(LOWEST), math.log(HIGHEST)
    inner_low, inner_high = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    loss_low, loss_high = loss(inner_low), loss(inner_high)
    while high - low > PRECISION:
        if loss_low < loss_high:
            high = inner_high
            inner_high, loss_high = inner_low, loss_low
            inner_low = high - GOLDEN * (high - low)
            loss_low = loss(inner_low)
        else:
            low = inner_low
            inner_low, loss_low = inner_high, loss_high
            inner_high = low + GOLDEN * (high - low)
            loss_high = loss(inner_high)
    temperature = math.exp((low + high) / 2)
    if temperature > HIGHEST * (1 - 2 * PRECISION):
        warnings.warn(
            "the network's confidence says nothing about the labels: the temperature is at its "
            f"limit of {HIGHEST:g}",
            stacklevel=2,
        )
    return temperature


def _labeled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits, in float64, and the labels of the items that have one."""
    check_kind("the logits", logits, Tensor, "torch.randn(8, 3)")
    check_kind("the labels", labels, Tensor, "torch.tensor([0, 2, 1])")
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise UserError(
            "a temperature needs logits (N, C) and labels (N,) of int64, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        )
    labeled = labels >= 0
    logits = logits[labeled].double()
    labels = labels[labeled]
    if not len(labels):
        raise UserError("a temperature needs items with labels, got none")
    if int(labels.max()) >= logits.shape[1]:
        raise UserError(
            f"the label {int(labels.max())} is none of {logits.shape[1]} classes; check the data"
        )
    if not bool(logits.isfinite().all()):
        raise UserError("a temperature needs finite logits; check the network and the data")
    return logits, labels


@contextmanager
def at_temperature(network: nn.Module, temperature: float) -> Iterator[None]:
    """Divide the logits of a network by a temperature within the block.

    >>> network = nn.Linear(4, 3)
    >>> x = torch.randn(2, 4)
    >>> logits = network(x)
    >>> with at_temperature(network, 2.0):
    ...     torch.allclose(network(x), logits / 2)
    True

    Args:
        network: returns logits, or a mapping with `logits`.
        temperature: positive.
    """

    def divide(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Mapping):
            return {**output, "logits": output["logits"] / temperature}
        return output / temperature

    handle = network.register_forward_hook(divide)
    try:
        yield
    finally:
        handle.remove()


def fold_temperature(network: nn.Module, temperature: float, inputs: tuple[Any, ...]) -> nn.Module:
    """Return a copy of a classifier whose last layer divides the logits by a temperature.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.randn(2, 4)
    >>> torch.allclose(fold_temperature(network, 2.0, (x,))(x), network(x) / 2)
    True

    Args:
        network: its logits come from its last linear layer or convolution, with nothing after it
            but what commutes with a factor, such as pooling.
        temperature: positive.
        inputs: of one batch, on which the result is checked; a single one need be no tuple.

    Raises:
        UserError: If the logits of the copy are not those of the network, divided.
    """
    check_positive_number("the temperature", temperature)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        folded = copy.deepcopy(network)
    except RuntimeError as error:
        raise UserError(
            f"the temperature cannot be folded into {type(network).__name__}, which cannot be "
            f"copied ({reason(error)})"
        ) from error
    layers = [m for m in folded.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    if layers:
        with torch.no_grad():
            for parameter in layers[-1].parameters():
                parameter.div_(temperature)
    with torch.no_grad(), eval_mode(network, folded):
        expected = _logits(call(network, inputs)) / temperature
        found = _logits(call(folded, inputs))
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise UserError(
            f"the temperature cannot be folded into {type(network).__name__}, whose logits are not "
            "those of its last layer; divide its logits when you use it"
        )
    return folded


def _logits(output: Any) -> Tensor:
    logits: Tensor = output["logits"] if isinstance(output, Mapping) else output
    return logits
