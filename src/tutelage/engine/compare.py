"""How the layers of two networks agree: a layer × layer map of debiased CKA, and which layers to pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from tutelage.core import Taps
from tutelage.core.batch import batch_inputs
from tutelage.core.device import device_of
from tutelage.core.eval_mode import eval_mode
from tutelage.core.tap import Address, find_module
from tutelage.engine.layers import layers_of
from tutelage.errors import UserError
from tutelage.similarity import CKAMatrix, ReliabilityReport, gram_of, reliability_report

Inputs = tuple[Any, ...]
MAP_BATCH = 128


def image_batches(images: Tensor) -> list[Tensor]:
    """Return images (N, ...) in batches of 128."""
    return [images[start : start + MAP_BATCH] for start in range(0, len(images), MAP_BATCH)]


@torch.no_grad()
def compare_layers(
    networks: Sequence[nn.Module],
    layers: Sequence[Sequence[str]],
    batches: Iterable[Any],
    permutations: int = 0,
    inputs: Callable[[Any], Inputs] = batch_inputs,
) -> CKAMatrix:
    """Return the CKA accumulator of two networks' layers over batches that both see.

    Every tapped output becomes a Gram matrix in the hook: no feature is kept, and an operation in place after the
    layer does not reach it. Both run in eval mode, each on its own device; the batches are gone through once.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> same = compare_layers([net, net], [["0", "2"], ["0", "2"]], [torch.randn(32, 4) for _ in range(4)])
    >>> [round(value, 4) for value in same.compute().value.diagonal().tolist()]
    [1.0, 1.0]

    Args:
        networks: the left one (rows) and the right one (columns).
        layers: tap addresses of each.
        batches: of a loader, for instance.
        permutations: random pairings for the p-values of `CKAMatrix`.
        inputs: says what of a batch the networks take.

    Raises:
        UserError: a layer does not exist or does not run, or an output is NaN; before or at the first batch.
    """
    left, right = networks
    taps = [Taps(network, names, keep=gram_of) for network, names in zip(networks, layers, strict=True)]
    matrix = CKAMatrix(layers[0], layers[1], permutations=permutations)
    try:
        with eval_mode(left, right):
            for batch in batches:
                given = inputs(batch)
                one, two = (tap(*send_to_device(given, device_of(tap.network))).taps for tap in taps)
                matrix.update_grams(one, two)
    finally:
        for tap in taps:
            tap.remove()
    return matrix


@torch.no_grad()
def judge(
    networks: Sequence[nn.Module], layers: Sequence[Sequence[str]], inputs: Inputs
) -> list[list[ReliabilityReport]]:
    """Return how far the CKA of every pair of layers can be trusted, from one batch of some hundred items.

    All that a `reliability_report` looks at is in the Gram matrices, so each layer's features are replaced by a
    square root of its Gram: n columns instead of C · H · W. (`dims` of the reports are these n.)

    Args:
        networks, layers: as in `compare`.
        inputs: the positional arguments of a forward, for n items.
    """
    sides = []
    for network, names in zip(networks, layers, strict=True):
        tap = Taps(network, names, keep=gram_of)
        try:
            with eval_mode(network):
                grams = tap(*send_to_device(inputs, device_of(network))).taps
        finally:
            tap.remove()
        sides.append([_root(grams[name]) for name in names])
    return [[reliability_report(x, y) for y in sides[1]] for x in sides[0]]


def layer_map(networks: Sequence[nn.Module], layers: Sequence[Sequence[str]], images: Tensor) -> list[list[float]]:
    """Return the CKA of all pairs of layers on images (N, C, H, W); NaN where a layer is constant."""
    values: list[list[float]] = compare_layers(networks, layers, image_batches(images)).compute().value.tolist()
    return values


def suggest_pairs(
    teacher: nn.Module,
    student: nn.Module,
    loader: Iterable[Any],
    most: int = 3,
    inputs: Callable[[Any], Inputs] = batch_inputs,
) -> list[tuple[str, str, float]]:
    """Return (student layer, teacher layer, CKA): the pairs that agree best, in the order of both networks.

    Of all ways to pair `most` layers without crossing, the one with the largest sum of CKA. Outputs (the last
    layer of each network) are left out, as logits have terms of their own, and so are layers without parameters.

    Args:
        teacher, student: networks that take the same inputs.
        loader: batches of at least 4 items each; a few hundred items are enough.
        most: how many pairs.
        inputs: says what of a batch the networks take.

    Raises:
        UserError: there is no batch, or a network has no layers besides its output.
    """
    given = [inputs(batch) for batch in loader]
    if not given:
        raise UserError("suggest_pairs needs at least one batch")
    layers = [_inner(network, given[0]) for network in (student, teacher)]
    value = compare_layers([student, teacher], layers, given, inputs=tuple).compute().value.nan_to_num(nan=-1.0)
    chosen = monotone_pairs(value, min(most, *value.shape))
    return [(layers[0][i], layers[1][j], float(value[i, j])) for i, j in chosen]


def monotone_pairs(value: Tensor, count: int) -> list[tuple[int, int]]:
    """Return the `count` cells with the largest sum whose rows and columns both rise.

    >>> monotone_pairs(torch.tensor([[0.9, 0.8], [0.95, 0.1]]), 1), monotone_pairs(torch.eye(2), 2)
    ([(1, 0)], [(0, 0), (1, 1)])

    Args:
        value: (rows, columns).
        count: at most the smaller of both.
    """
    rows, columns = value.shape
    table = value.tolist()
    best: list[list[list[tuple[float, tuple[tuple[int, int], ...]]]]] = []
    nothing = (0.0, ())
    impossible: tuple[float, tuple[tuple[int, int], ...]] = (float("-inf"), ())
    best.append([[nothing] * (columns + 1) for _ in range(rows + 1)])
    for _ in range(count):
        before, now = best[-1], [[impossible] * (columns + 1) for _ in range(rows + 1)]
        for i in range(rows):
            for j in range(columns):
                total, cells = before[i][j]
                with_cell = (total + table[i][j], (*cells, (i, j)))
                now[i + 1][j + 1] = max(with_cell, now[i][j + 1], now[i + 1][j], key=lambda found: found[0])
        best.append(now)
    return list(best[-1][rows][columns][1])


def _root(gram: Tensor) -> Tensor:
    """Return features (n, n) with this Gram matrix, centred; zeros stay zeros."""
    k = gram.double().cpu()
    k = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
    values, vectors = torch.linalg.eigh(k)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def _inner(network: nn.Module, inputs: Inputs) -> list[str]:
    found = [name for name in layers_of(network, inputs) if _has_parameters(network, name)]
    if len(found) < 2:
        raise UserError(f"{type(network).__name__} has no layers to pair besides its output; name the pairs yourself")
    return found[:-1]


def _has_parameters(network: nn.Module, address: str) -> bool:
    return next(find_module(network, Address.parse(address).module).parameters(), None) is not None
