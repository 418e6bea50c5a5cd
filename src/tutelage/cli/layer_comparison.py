"""The layers of two networks compared on the same data, and the files about it."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from tutelage.analysis import (
    compare_layers,
    layers_of,
    reliability_matrix,
    split_inputs,
    write_comparison,
)
from tutelage.analysis.formatting import text_table
from tutelage.cli.networks import load_network
from tutelage.core import Batch
from tutelage.core.modes import eval_mode
from tutelage.data import ImageSet
from tutelage.engine.checks.parts import run_once
from tutelage.errors import UserError
from tutelage.recipes import Recipe, load_recipe
from tutelage.report import write_picture, write_report
from tutelage.similarity import CKAResult, ReliabilityReport, SimilarityWarning
from tutelage.similarity._interval_verdict import heed_interval

BATCH_SIZE = 128
MIN_BATCH = 4  # items that debiased CKA needs
MIN_ITEMS = 8  # of a batch, if there are so many
NUM_BATCHES = 8  # at least, if there are so many samples
LAYER_ITEMS = 4  # items with which the layers of a network are found
RELIABILITY_ITEMS = 256  # items that the verdicts are based on


def compare_networks(arguments: argparse.Namespace, out: Path) -> str:
    """Write the comparison of two networks, and return the table of closest layers.

    Args:
        arguments: of `tutelage compare`.
        out: folder to write.

    Raises:
        UserError: If a network cannot be loaded or does not take the data, or a layer does not
            exist; nothing is written then.
    """
    left = load_network(arguments.left)
    right = load_network(arguments.right)
    recipe = left.recipe if arguments.data is None else load_recipe(arguments.data)
    batch, count = _draw(recipe, arguments.split, arguments.num_samples)
    inputs = recipe.task.inputs(batch)
    networks = [left.network, right.network]
    layers = [
        _layers(left.network, arguments.left, arguments.layers_left, inputs),
        _layers(right.network, arguments.right, arguments.layers_right, inputs),
    ]
    for source, loaded in ((arguments.left, left), (arguments.right, right)):
        if not loaded.is_trained:
            print(
                f"{source} names no weights: its network is compared as it starts, untrained",
                file=sys.stderr,
            )
    matrix = compare_layers(
        networks,
        layers,
        split_inputs(batch, batch_size(count)),
        permutations=arguments.permutations,
        inputs=recipe.task.inputs,
    )
    if count < arguments.num_samples:
        print(
            f"{count} samples are compared, for the {arguments.split} part holds no more",
            file=sys.stderr,
        )
    reports = _reliability(networks, layers, split_inputs(inputs, RELIABILITY_ITEMS)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimilarityWarning)  # the verdicts say it
        result = matrix.compute()
    reports = [
        [
            heed_interval(report, float(result.low[i, j]), float(result.high[i, j]), result.batches)
            for j, report in enumerate(row)
        ]
        for i, row in enumerate(reports)
    ]
    titles = (arguments.left, arguments.right)
    write_comparison(out, result, reports, titles, permutations=arguments.permutations)
    matrix.save(out / "sums.safetensors")
    try:
        for name in ("heatmap.png", "heatmap.svg"):
            write_picture(out, out / name)
    except UserError as error:  # the table and the page stand without them
        print(f"without pictures: {error}", file=sys.stderr)
    write_report(out, out / "report.html")
    table = closest_layers(result, [[report.verdict for report in row] for row in reports])
    if result.batches < 2:
        table += f"\nno intervals: {count} samples are one batch; take at least 8"
    return table


def _reliability(
    networks: Sequence[nn.Module], layers: Sequence[Sequence[str]], inputs: tuple[Any, ...]
) -> list[list[ReliabilityReport]]:
    """Return the reports of all pairs of layers, with a bar on a terminal."""
    count = len(layers[0]) * len(layers[1])
    with tqdm(total=count, desc="reliability", unit="pair", leave=False, disable=None) as bar:

        def show(done: int, count: int) -> None:
            bar.update(done - bar.n)

        return reliability_matrix(networks, layers, inputs, progress=show)


def batch_size(count: int) -> int:
    """Return the size of the batches that leaves no sample out and allows for intervals.

    An interval comes from leaving out one batch after the other: from two it is 12.7 standard
    deviations to each side, from eight 2.4. So there are eight batches, as long as each has 8 items
    or more: the debiased CKA of fewer is nearly noise.

    >>> [batch_size(count) for count in (6, 20, 64, 129, 200, 512, 2000)]
    [6, 8, 8, 17, 25, 64, 128]
    """
    if count < 2 * MIN_ITEMS:
        return count if count < 2 * MIN_BATCH else math.ceil(count / 2)
    size = min(BATCH_SIZE, max(MIN_ITEMS, math.ceil(count / NUM_BATCHES)))
    # A batch of fewer than 4 items has no debiased CKA, so none is left over at the end.
    while 0 < count % size < MIN_BATCH:
        size += 1
    return size


def closest_layers(result: CKAResult, verdicts: Sequence[Sequence[str]]) -> str:
    """Return a table: for every left layer the right layer that agrees most with it."""
    rows = []
    for i, name in enumerate(result.left):
        values = result.value[i].nan_to_num(nan=-2.0)
        j = int(values.argmax())
        if values[j] < -1:
            rows.append([name, "–", "undefined", "–", verdicts[i][j]])
            continue
        interval = "–"
        if not math.isnan(float(result.low[i, j])):
            interval = f"[{result.low[i, j]:.3f}, {result.high[i, j]:.3f}]"
        rows.append([name, result.right[j], f"{result.value[i, j]:.3f}", interval, verdicts[i][j]])
    header = [
        "left layer",
        "closest right layer",
        "CKA",
        f"{result.confidence:.0%} interval",
        "verdict",
    ]
    return text_table(header, rows)


def _layers(
    network: nn.Module, source: str, names: str | None, inputs: tuple[Any, ...]
) -> list[str]:
    """Return the layers to compare, once the network was seen to take these inputs."""
    few = split_inputs(inputs, LAYER_ITEMS)[0]
    with torch.no_grad(), eval_mode(network):
        run_once(f"network of {source}", network, few)
    layers = layers_of(network, few) if names is None else names.split(",")
    if not layers:
        raise UserError(
            f"{type(network).__name__} has no layer with one row per item; "
            "name layers with --layers-left/right"
        )
    return layers


def _draw(recipe: Recipe, split: str, num_samples: int) -> tuple[Batch, int]:
    """Return samples of one part of the data, always in the same shuffled order, and how many."""
    samples = recipe.data.splits(None, 0)[split]
    if isinstance(samples, ImageSet):  # training images come without their augmentation
        samples = samples.subset_with(torch.arange(len(samples)), None, 0)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    positions = order[:num_samples].tolist()
    return samples.batch([(0, position) for position in positions]), len(positions)
