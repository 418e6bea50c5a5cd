"""`tutelage compare`: which layers of two networks agree on the same images, and how far to trust each number."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.cli.networks import Loaded, load_network
from tutelage.cli.recipes import parse_recipe
from tutelage.cli.tables import table
from tutelage.core.eval_mode import eval_mode
from tutelage.engine.compare import compare_layers, image_batches, judge
from tutelage.engine.comparison import write_comparison
from tutelage.engine.layers import layers_of
from tutelage.engine.probe import try_network
from tutelage.engine.recipe import Recipe
from tutelage.errors import UserError
from tutelage.report import write_picture, write_report
from tutelage.similarity import CKAResult, SimilarityWarning

JUDGED = 256


def run(arguments: argparse.Namespace) -> int:
    """Compare, write the folder, print each left layer's closest partner."""
    out = Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; choose another --out")
    sides = [load_network(source) for source in (arguments.left, arguments.right)]
    images = _images(sides[0] if arguments.data is None else arguments.data, arguments.part, arguments.samples)
    networks = [side.network for side in sides]
    for source, network in zip((arguments.left, arguments.right), networks, strict=True):
        with torch.no_grad(), eval_mode(network):
            try_network(f"network of {source}", network, (images[:4],))
    wanted = (arguments.layers_left, arguments.layers_right)
    layers = [_layers(network, names, images) for network, names in zip(networks, wanted, strict=True)]
    for source, side in zip((arguments.left, arguments.right), sides, strict=True):
        if not side.trained:
            print(f"{source} names no weights: its network is compared as it starts, untrained", file=sys.stderr)
    matrix = compare_layers(networks, layers, image_batches(images), arguments.permutations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimilarityWarning)  # the verdicts say it
        found, judged = matrix.compute(), judge(networks, layers, (images[:JUDGED],))
    write_comparison(out, found, judged, (arguments.left, arguments.right))
    matrix.save(out / "sums.safetensors")
    for name in ("heatmap.png", "heatmap.svg"):
        write_picture(out, out / name)
    write_report(out, out / "report.html")
    print(closest(found, [[cell.verdict for cell in row] for row in judged]))
    print(f"\n{out}/report.html  {out}/compare.csv  {out}/compare.json")
    return 0


def closest(found: CKAResult, verdicts: list[list[str]]) -> str:
    """Return a table: for every left layer the right layer that agrees most with it."""
    rows = []
    for i, name in enumerate(found.left):
        values = found.value[i].nan_to_num(nan=-2.0)
        j = int(values.argmax())
        if values[j] < -1:
            rows.append([name, "–", "undefined", "–", verdicts[i][j]])
            continue
        interval = f"[{found.low[i, j]:.3f}, {found.high[i, j]:.3f}]"
        rows.append([name, found.right[j], f"{found.value[i, j]:.3f}", interval, verdicts[i][j]])
    return table(["left layer", "closest right layer", "CKA", f"{found.confidence:.0%} interval", "verdict"], rows)


def _layers(network: nn.Module, names: str | None, images: Tensor) -> list[str]:
    found = layers_of(network, (images[:4],)) if names is None else names.split(",")
    if not found:
        raise UserError(
            f"{type(network).__name__} has no layer with one row an image; name layers with --layers-left/right"
        )
    return found


def _images(source: Loaded | str, part: str, samples: int) -> Tensor:
    """Return images of one part of the data that a recipe names, in a shuffled order that is always the same."""
    if samples < 4:
        raise UserError(f"--samples must be at least 4, got {samples}")
    recipe: Recipe = parse_recipe(source).build() if isinstance(source, str) else source.recipe
    splits = recipe.data.splits(None, 0)
    items = {"train": splits.train.part(torch.arange(len(splits.train)), None, 0), "validation": splits.validation}
    chosen = items.get(part, splits.test)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:samples].tolist()
    images: Tensor = chosen.__getitems__(order)[0]
    return images
