"""`tutelage cache`: store a teacher's vectors once, for all runs and for serving."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli._parser import OVERRIDES, Commands, add_command
from tutelage.errors import UserError

if TYPE_CHECKING:
    from tutelage.cache import CachedEncoder
    from tutelage.recipes import Recipe

EXAMPLES = """
tutelage cache retrieval/cranfield/embed_distill --out cache/
tutelage cache retrieval/cranfield/embed_distill --out cache/ --dtype float16
tutelage cache own/embed_distill.yaml --data.root DIR
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "cache",
        "store a teacher's vectors of corpus and queries, for all runs",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    command.add_argument(
        "source", metavar="RECIPE", help="name of a shipped recipe, or a YAML file"
    )
    command.add_argument(
        "--out", help="folder of the vectors (default: that of the recipe's CachedEncoder)"
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        help="of the stored vectors (default: the recipe's); half precision says what it costs",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Encode what is not there yet, and print the files."""
    from tutelage.recipes import parse_recipe

    recipe = parse_recipe(arguments.source, overrides).build()
    encoder = _cached_encoder(recipe)
    if arguments.out is not None:
        encoder.folder = arguments.out
    if arguments.dtype is not None:
        encoder.dtype = arguments.dtype
    parts = recipe.data.splits(recipe.num_labels, recipe.seed)
    train: Any = recipe.method.build_data(parts["train"], _no_teacher())
    collections = list(train.collections())
    for name in ("validation", "test"):
        part: Any = parts[name]
        collections.append((part.queries, "query"))
    # Those of a part may be cut from another one's.
    unique = {(collection.digest, role): (collection, role) for collection, role in collections}
    encoder.prepare(list(unique.values()))
    folder = Path(encoder.folder)
    for collection, role in unique.values():
        path = folder / f"{role}-{collection.name}.npy"
        size = path.stat().st_size / 2**20
        print(f"{path}  {len(collection)} × {encoder.dim} {encoder.dtype}, {size:.1f} MiB")
    if encoder.dtype == "float16":
        print(_cost_of_rounding(recipe, encoder, parts))
    return 0


def _no_teacher() -> Any:
    """Return no teacher: the data is only listed here, and a teacher would encode it."""
    from tutelage.core import NoTeacher

    return NoTeacher()


def _cached_encoder(recipe: Recipe) -> CachedEncoder:
    """Return the teacher of a recipe.

    Raises:
        UserError: If it keeps no vectors in files.
    """
    from tutelage.cache import CachedEncoder

    model = None if recipe.teacher is None else recipe.teacher.model
    if not isinstance(model, CachedEncoder):
        kind = "no teacher" if model is None else f"the teacher {type(model).__name__}"
        raise UserError(
            f"cache stores the vectors of a teacher that is a tutelage.cache.CachedEncoder, but "
            f"the recipe has {kind}; wrap the encoder in one (for outputs of images, "
            "teacher.cache: memory keeps them for a run)"
        )
    return model


def _cost_of_rounding(recipe: Recipe, encoder: CachedEncoder, parts: Any) -> str:
    """Return what half precision does to the teacher's metric on validation queries.

    The exact vectors are those that the encoder gives now for the queries; documents are ranked
    with their stored vectors, and with these computed anew.
    """
    import torch

    from tutelage.core import Evaluation
    from tutelage.engine.evaluate import EvalLoading, evaluate

    loading = EvalLoading(32, 0, torch.device("cpu"))
    run = Evaluation("validation", loading.batches)
    monitor = recipe.task.monitor
    stored = evaluate(encoder, recipe.task, parts, run)[monitor]
    exact = evaluate(encoder.encoder, recipe.task, parts, run)[monitor]
    return (
        f"{monitor} on validation queries: {exact:.5f} exact, {stored:.5f} with float16 "
        f"({stored - exact:+.1e})"
    )
