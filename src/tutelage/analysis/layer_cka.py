"""How the layers of two networks agree: a layer × layer map of debiased CKA, and layers to pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.analysis._inputs import (
    Inputs,
    batch_inputs,
    num_items,
    split_inputs,
    to_device_of,
)
from tutelage.analysis.layers import layers_of
from tutelage.core._arguments import blame_inputs
from tutelage.core._checks import (
    item_counts,
    refuse_changed_inputs,
    versions_of,
)
from tutelage.core.batch import Batch
from tutelage.core.modes import eval_mode
from tutelage.core.taps import Address, FeatureTaps, find_module
from tutelage.errors import UserError
from tutelage.similarity import CKAMatrix, ReliabilityReport, gram_of
from tutelage.similarity._reliability_sides import ReliabilitySide, report_of_sides
from tutelage.similarity.cka_matrix import MIN_ITEMS

Cells = tuple[tuple[int, int], ...]

Counted = tuple[Sequence[int], Inputs]
"""Inputs after the numbers of rows that an output of them may have."""


def compare_layers(
    networks: Sequence[nn.Module],
    layers: Sequence[Sequence[str]],
    batches: Iterable[Any],
    *,
    permutations: int = 0,
    inputs: Callable[[Batch], Inputs] = batch_inputs,
) -> CKAMatrix:
    """Return the CKA accumulator of two networks' layers over batches that both see.

    Every tapped output becomes a Gram matrix in the hook: no features are stored, and an operation
    in place after the layer does not reach it. Both networks run in eval mode, each on its own
    device; the batches are iterated over once. A batch of fewer than 4 items is skipped and counted
    (`CKAResult.skipped`).

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> batches = [torch.randn(32, 4) for _ in range(4)]
    >>> matrix = compare_layers([net, net], [["0", "2"], ["0", "2"]], batches)
    >>> [round(value, 4) for value in matrix.compute().value.diagonal().tolist()]
    [1.0, 1.0]

    Args:
        networks: the left one (rows) and the right one (columns).
        layers: tap addresses of each.
        batches: of a data loader, for instance; anything that `Batch.of` takes.
        permutations: random pairings for the p-values of `CKAMatrix`.
        inputs: returns the positional arguments of a forward for a batch, as `Task.inputs` does;
            default: the inputs of the batch.

    Raises:
        UserError: If a layer does not exist or does not run, if an output is NaN or its first axis
            is not the items, or if a network changes its inputs in place.
    """
    return _accumulate(
        networks,
        layers,
        (_counted(Batch.of(batch), inputs) for batch in batches),
        permutations,
    )


def reliability_matrix(
    networks: Sequence[nn.Module],
    layers: Sequence[Sequence[str]],
    inputs: Inputs,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[ReliabilityReport]]:
    """Return how far the CKA of every pair of layers can be trusted.

    The Gram matrices of the layers have all that a `reliability_report` looks at, so no features
    are stored; `dims` of the reports are n. With 256 items a pair takes about 0.5 ms of one core.

    Args:
        networks: the left one (rows) and the right one (columns).
        layers: tap addresses of each.
        inputs: positional arguments of a forward, for one batch of some hundred items.
        progress: called after each row with the number of finished pairs and of all pairs.
    """
    left = _reliability_sides("left", networks[0], layers[0], inputs)
    right = _reliability_sides("right", networks[1], layers[1], inputs)
    rows: list[list[ReliabilityReport]] = []
    for side in left:
        rows.append([report_of_sides(side, opposite) for opposite in right])
        if progress is not None:
            progress(len(rows) * len(right), len(left) * len(right))
    return rows


def layer_map(
    networks: Sequence[nn.Module], layers: Sequence[Sequence[str]], inputs: Inputs
) -> list[list[float]]:
    """Return the CKA of all pairs of layers on some items; NaN where a layer is constant.

    Args:
        networks: the left one (rows) and the right one (columns).
        layers: tap addresses of each.
        inputs: positional arguments of a forward, for any number of items; they are cut into
            batches.
    """
    parts = [([num_items(part)], part) for part in split_inputs(inputs)]
    matrix = _accumulate(networks, layers, parts, permutations=0)
    values: list[list[float]] = matrix.compute().value.tolist()
    return values


def suggest_pairs(
    teacher: nn.Module,
    student: nn.Module,
    loader: Iterable[Any],
    *,
    num_pairs: int = 3,
    inputs: Callable[[Batch], Inputs] = batch_inputs,
) -> list[tuple[str, str, float]]:
    """Return (student layer, teacher layer, CKA) of the pairs that agree best.

    Of all ways to pair `num_pairs` layers without crossing, it is the one with the largest sum of
    CKA, in the order of both networks. Outputs (the last layer of each network) are left out, as
    logits have terms of their own, and so are layers without parameters.

    Args:
        teacher: a network.
        student: a network that takes the same inputs.
        loader: batches of at least 4 items each; a few hundred items are enough.
        num_pairs: how many pairs.
        inputs: returns the positional arguments of a forward for a batch, as in `compare_layers`.

    Raises:
        UserError: If there is no batch, or if a network has no layers besides its output.
    """
    batches = [_counted(Batch.of(batch), inputs) for batch in loader]
    if not batches:
        raise UserError("suggest_pairs needs at least one batch")
    student_layers = _inner_layers(student, batches[0][1])
    teacher_layers = _inner_layers(teacher, batches[0][1])
    matrix = _accumulate(
        [student, teacher], [student_layers, teacher_layers], batches, permutations=0
    )
    value = matrix.compute().value.nan_to_num(nan=-1.0)
    cells = monotone_pairs(value, min(num_pairs, *value.shape))
    return [(student_layers[i], teacher_layers[j], float(value[i, j])) for i, j in cells]


def monotone_pairs(value: Tensor, count: int) -> list[tuple[int, int]]:
    """Return the `count` cells with the largest sum whose rows and columns both rise.

    >>> monotone_pairs(torch.tensor([[0.9, 0.8], [0.95, 0.1]]), 1)
    [(1, 0)]
    >>> monotone_pairs(torch.eye(2), 2)
    [(0, 0), (1, 1)]

    Args:
        value: (rows, columns).
        count: at most the smaller of both.
    """
    rows, columns = value.shape
    scores = value.tolist()
    # best[i][j] is the largest sum of k cells in the first i rows and j columns, and these cells;
    # k grows by one in every round.
    no_cells: tuple[float, Cells] = (0.0, ())
    impossible: tuple[float, Cells] = (float("-inf"), ())
    best = [[no_cells] * (columns + 1) for _ in range(rows + 1)]
    for _ in range(count):
        extended = [[impossible] * (columns + 1) for _ in range(rows + 1)]
        for i in range(rows):
            for j in range(columns):
                total, cells = best[i][j]
                with_cell = (total + scores[i][j], (*cells, (i, j)))
                without_row = extended[i][j + 1]
                without_column = extended[i + 1][j]
                extended[i + 1][j + 1] = max(
                    with_cell, without_row, without_column, key=itemgetter(0)
                )
        best = extended
    return list(best[rows][columns][1])


def _counted(batch: Batch, inputs: Callable[[Batch], Inputs]) -> Counted:
    """Return the inputs of a batch after the numbers of rows that an output of it may have."""
    values = inputs(batch)
    return item_counts(batch, values), values


@torch.no_grad()
def _accumulate(
    networks: Sequence[nn.Module],
    layers: Sequence[Sequence[str]],
    batches: Iterable[Counted],
    permutations: int,
) -> CKAMatrix:
    """Return the CKA accumulator over batches of inputs."""
    left, right = networks
    left_layers, right_layers = layers
    matrix = CKAMatrix(left_layers, right_layers, permutations=permutations)
    taps: list[FeatureTaps] = []
    try:
        # Before the first batch, so that an unknown layer costs no time.
        taps.append(FeatureTaps(left, left_layers, transform=gram_of))
        taps.append(FeatureTaps(right, right_layers, transform=gram_of))
        with eval_mode(left, right):
            for index, (counts, inputs) in enumerate(batches):
                if counts and max(counts) < MIN_ITEMS:
                    # The accumulator counts it; a network may even fail on a single item.
                    zeros = torch.zeros(counts[0], counts[0])
                    matrix.update_grams(
                        dict.fromkeys(left_layers, zeros), dict.fromkeys(right_layers, zeros)
                    )
                    continue
                grams_left = _grams(f"left network, batch {index}", taps[0], counts, inputs)
                grams_right = _grams(f"right network, batch {index}", taps[1], counts, inputs)
                matrix.update_grams(grams_left, grams_right)
    finally:
        for tap in taps:
            tap.remove()
    return matrix


def _grams(
    where: str, taps: FeatureTaps, counts: Sequence[int], inputs: Inputs
) -> Mapping[str, Tensor]:
    """Return the Gram matrices of a network's layers on one batch.

    Args:
        where: the side and the batch, for messages.
        taps: on the network.
        counts: the numbers of rows that an output may have; none if nobody knows.
        inputs: of the batch.
    """
    versions = versions_of(inputs)
    try:
        grams = taps(*to_device_of(taps.network, inputs)).features
        for name, gram in grams.items():
            if counts and len(gram) not in counts:
                raise UserError(
                    f"the layer {name!r} has {len(gram)} rows for {counts[0]} items: its first "
                    "axis is not the items; let the network give the batch first "
                    "(batch_first=True), or choose another layer"
                )
        refuse_changed_inputs("the network", versions)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        blamed = blame_inputs(f"the {where}", taps.network, inputs, error)
        if blamed is None:
            raise
        raise blamed from error
    return grams


@torch.no_grad()
def _reliability_sides(
    side: str, network: nn.Module, layers: Sequence[str], inputs: Inputs
) -> list[ReliabilitySide]:
    taps = FeatureTaps(network, layers, transform=gram_of)
    try:
        with eval_mode(network):
            grams = _grams(f"{side} network", taps, [num_items(inputs)], inputs)
    finally:
        taps.remove()
    return [ReliabilitySide.of_gram(grams[layer].cpu()) for layer in layers]


def _inner_layers(network: nn.Module, inputs: Inputs) -> list[str]:
    """Return the layers with parameters, without the last one."""
    layers = [name for name in layers_of(network, inputs) if _has_parameters(network, name)]
    if len(layers) < 2:
        raise UserError(
            f"{type(network).__name__} has no layers to pair besides its output; name them yourself"
        )
    return layers[:-1]


def _has_parameters(network: nn.Module, address: str) -> bool:
    parameters = find_module(network, Address.parse(address).module).parameters()
    return next(parameters, None) is not None
