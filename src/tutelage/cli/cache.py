"""`tutelage cache`: store a teacher's outputs or vectors once, for all runs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli._parser import (
    OVERRIDES,
    Commands,
    add_command,
    add_ray,
    add_recipe,
    add_teacher_dir,
)
from tutelage.errors import UserError

if TYPE_CHECKING:
    from tutelage.cache import CachedEncoder
    from tutelage.cache.disk import Elsewhere
    from tutelage.engine import Setup
    from tutelage.recipes import ParsedRecipe, Recipe

EXAMPLES = """
tutelage cache classification/fashion-mnist/kd --out cache/ --ray
tutelage cache own/rcka.yaml --out cache/ --views 4 --dtype float16 --top-k 20
tutelage cache retrieval/cranfield/embed_distill --out cache/
tutelage cache own/embed_distill.yaml --data.root DIR
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "cache",
        "store a teacher's outputs or vectors, for all runs",
        examples=EXAMPLES,
        overrides=OVERRIDES,
    )
    add_recipe(command)
    command.add_argument(
        "--out",
        help="folder of the files (default: the recipe's teacher.cache_dir or CachedEncoder)",
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        help="of what is stored; what float16 costs is said",
    )
    command.add_argument(
        "--views",
        type=int,
        help="with augmentation: how many views of each sample",
    )
    command.add_argument("--top-k", type=int, help="logits of a sample that are stored")
    add_ray(command)
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="for --ray (default: one a GPU, or else a CPU)",
    )
    add_teacher_dir(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Compute what is not there yet, and print the files."""
    from tutelage.cache import CachedEncoder
    from tutelage.cli.teachers import resolve_teachers
    from tutelage.recipes import parse_recipe

    if arguments.workers is not None and arguments.ray is None:
        raise UserError("--workers is for a cluster; add --ray, or leave it out")
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers must be at least 1, got {arguments.workers}")
    parsed, teachers = resolve_teachers(
        parse_recipe(arguments.source, overrides), Path(arguments.teacher_dir)
    )
    for teacher in teachers:
        if not teacher.train():
            raise KeyboardInterrupt
    recipe = parsed.build()
    if recipe.teacher is None or not isinstance(recipe.teacher.model, CachedEncoder):
        return _store_outputs(arguments, parsed, recipe)
    if arguments.ray is not None:
        raise UserError("--ray is for outputs of images; texts are encoded on this machine")
    for option in ("views", "top_k"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} is for outputs of images, not of texts")
    return _store_vectors(arguments, recipe, recipe.teacher.model)


def _store_outputs(arguments: argparse.Namespace, parsed: ParsedRecipe, recipe: Recipe) -> int:
    """Store the outputs and layers that the recipe's method reads, and print what they are."""
    from dataclasses import replace

    from tutelage.engine import Setup
    from tutelage.engine.setup import make_accelerator
    from tutelage.engine.teacher_cache import fill_cache
    from tutelage.models.text import DualEncoder
    from tutelage.recipes import TeacherConfig

    def stored(config: TeacherConfig) -> TeacherConfig:
        return replace(
            config,
            cache="disk",
            cache_dir=config.cache_dir if arguments.out is None else arguments.out,
            cache_dtype=arguments.dtype or config.cache_dtype,
            cache_views=config.cache_views if arguments.views is None else arguments.views,
            cache_top_k=config.cache_top_k if arguments.top_k is None else arguments.top_k,
        )

    if recipe.teacher is not None and isinstance(recipe.teacher.model, DualEncoder):
        raise UserError(
            f"the teacher {type(recipe.teacher.model).__name__} encodes texts, whose vectors are "
            "stored by collection; wrap it in a tutelage.cache.CachedEncoder"
        )
    teacher = None if recipe.teacher is None else stored(recipe.teacher)
    teachers = None
    if recipe.teachers is not None:
        teachers = {name: stored(config) for name, config in recipe.teachers.items()}
    recipe = replace(recipe, teacher=teacher, teachers=teachers)
    device = make_accelerator(recipe.train).device
    setup = Setup.of(recipe)
    with _elsewhere(arguments, parsed, setup) as elsewhere:
        filled = fill_cache(setup, device, elsewhere)
    rows = f"{filled.num_samples} samples"
    if filled.views > 1:
        rows += f" × {filled.views} views"
    for name, errors in filled.errors.items():
        paths = filled.files(name)
        size = sum(path.stat().st_size for path in paths) / 2**20
        what = name or "logits"
        print(f"{what}  {rows}, {size:.1f} MiB in {len(paths)} file(s), {_in_words(errors)}")
    print(f"{filled.folder}\ntrain with {_keys(recipe, filled.views)}")
    return 0


def _keys(recipe: Recipe, views: int) -> str:
    """Return the options with which `train` reads the files."""
    if recipe.teacher is not None:
        sections = {"teacher": recipe.teacher}
    else:
        several = recipe.teachers or {}
        sections = {f"teachers.{name}": section for name, section in several.items()}
    words = []
    for name, section in sections.items():
        keys = {"cache": "disk", "cache_dir": section.cache_dir}
        if views > 1:
            keys["cache_views"] = str(views)
        if section.cache_dtype != "float32":
            keys["cache_dtype"] = section.cache_dtype
        if section.cache_top_k is not None:
            keys["cache_top_k"] = str(section.cache_top_k)
        words += [f"--{name}.{key} {shlex.quote(value)}" for key, value in keys.items()]
    return " ".join(words)


@contextmanager
def _elsewhere(
    arguments: argparse.Namespace, parsed: ParsedRecipe, setup: Setup
) -> Iterator[Elsewhere | None]:
    """Have the workers of a cluster within the block, or None without --ray."""
    if arguments.ray is None:
        yield None
        return
    from tutelage.cluster.ray_labeling import Labelers, RecipeText
    from tutelage.cluster.ray_session import ray_session

    recipe = setup.recipe
    values: dict[str, Any] = {}
    for key in parsed.teachers():
        name = key.partition(".")[2]
        config = (recipe.teachers or {})[name] if name else recipe.teacher
        for field in ("cache", "cache_dir", "cache_dtype", "cache_views", "cache_top_k"):
            values[f"{key}.{field}"] = getattr(config, field)
    text = RecipeText(parsed.replace(values).text(), parsed.path.absolute(), Path.cwd())
    batch_size = setup.eval_batch_size
    with ray_session(arguments.ray) as ray:
        yield Labelers(ray, text, batch_size, arguments.workers)


def _in_words(errors: Mapping[str, float]) -> str:
    if not errors["difference"]:
        return "exact"
    text = f"off by at most {errors['difference']:.1e}"
    if "kl" in errors:
        text += (
            f"; KL(teacher, stored) {errors['kl']:.1e}, at temperature 4 {errors['kl_at_4']:.1e}"
        )
    return text


def _store_vectors(arguments: argparse.Namespace, recipe: Recipe, encoder: CachedEncoder) -> int:
    """Encode the texts that are not there yet, and print the files."""
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
