"""A recipe's teacher with its outputs stored, in memory or in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tutelage.cache import CachedTeacher, StoredTeacher
from tutelage.cache.disk import Elsewhere
from tutelage.cache.table import refuse_views
from tutelage.core import Batch, Teacher
from tutelage.data.repeated_views import KeyedSamples, RepeatedViews
from tutelage.data.samples import Key, Samples
from tutelage.engine.checks.teacher import state_hash
from tutelage.engine.evaluate import EvalLoading, RecordedTeacher, is_one_pass
from tutelage.errors import UserError
from tutelage.recipes.config import Recipe, TeacherConfig

if TYPE_CHECKING:
    from tutelage.engine.setup import Setup


def cache_of(recipe: Recipe) -> TeacherConfig | None:
    """Return the section of the teacher whose outputs are stored; None if none are."""
    configs = list((recipe.teachers or {}).values())
    if recipe.teacher is not None:
        configs.append(recipe.teacher)
    return next((config for config in configs if config.cache != "none"), None)


def with_repeated_views(recipe: Recipe, samples: Samples) -> Samples:
    """Return the training data, whose augmentations repeat if the cache holds the first few."""
    config = cache_of(recipe)
    if config is None or config.cache_views is None:
        return samples
    return RepeatedViews(samples, config.cache_views)


def cached_teacher(
    setup: Setup, samples: Samples, device: torch.device, elsewhere: Elsewhere | None = None
) -> Teacher:
    """Return the teacher, or one that answers from a cache if the recipe asks for it.

    Args:
        setup: recipe and teacher.
        samples: the training data.
        device: of the teacher.
        elsewhere: runs the teacher in place of this process, for a cache in files.
    """
    config = cache_of(setup.recipe)
    if config is None:
        return setup.teacher
    loading = setup.eval_loading(device)
    views = config.cache_views or 1
    if views > 1 and not _is_augmented(samples):
        views = 1  # all views would be the same
    count = len(samples)
    task = setup.recipe.task
    if config.cache == "memory":
        return CachedTeacher(
            setup.teacher,
            task,
            lambda: _view_by_view(samples, loading, views),
            count,
            views=views,
        )

    is_drawn = setup.recipe.num_labels is not None or views > 1
    stored = _stored(setup, config, samples, device, views, "train", is_drawn)
    stored.elsewhere = elsewhere
    return stored


def teacher_beside(setup: Setup, part: str, device: torch.device) -> Teacher:
    """Return the teacher that students are compared with on a part, asked once for each batch.

    With `teacher.cache: disk` its outputs are in files, too, exact and for all runs.

    Args:
        setup: recipe and teacher.
        part: of the data.
        device: of the batches.
    """
    config = cache_of(setup.recipe)
    if config is None or config.cache != "disk" or not is_one_pass(setup.recipe.task):
        return RecordedTeacher(setup.teacher)
    return _stored_beside(setup, config, part, device).with_taps([])


def _stored_beside(
    setup: Setup, config: TeacherConfig, part: str, device: torch.device
) -> StoredTeacher:
    exact = replace(config, cache_dtype="float32", cache_top_k=None)
    return _stored(setup, exact, setup.parts[part], device, 1, part, False)


def _stored(
    setup: Setup,
    config: TeacherConfig,
    samples: Samples,
    device: torch.device,
    views: int,
    part: str,
    is_drawn: bool,
) -> StoredTeacher:
    """Return the teacher with its outputs for one part in files.

    Args:
        setup: recipe and teacher.
        config: how they are stored.
        samples: of the part.
        device: of the teacher.
        views: how many views of each sample.
        part: name of the part.
        is_drawn: whether the seed decides which samples or views there are.
    """
    loading = setup.eval_loading(device)

    def batches(keys: Sequence[Key]) -> Iterable[Batch]:
        return loading.batches(KeyedSamples(samples, keys))

    return StoredTeacher(
        setup.teacher,
        setup.recipe.task,
        batches,
        len(samples),
        Path(config.cache_dir).expanduser(),
        {**_facts(setup, samples, is_drawn), "part": part},
        views=views,
        dtype=config.cache_dtype,
        top_k=config.cache_top_k,
        batch_size=loading.batch_size,
    )


def stored_teacher(setup: Setup, part: str, device: torch.device) -> Teacher:
    """Return the teacher of one part, not asked yet, as `fill_cache` stores it.

    Args:
        setup: of a recipe with `teacher.cache: disk`.
        part: "train" or "test".
        device: where the teacher runs.
    """
    for model in setup.teacher.models().values():
        model.to(device)
    if part == "train":
        return cached_teacher(setup, training_samples(setup), device)
    config = cache_of(setup.recipe)
    assert config is not None
    return _stored_beside(setup, config, part, device)


def training_samples(setup: Setup) -> Samples:
    """Return the training data as the method makes it, with repeated views if they are stored."""
    train = setup.recipe.method.build_data(setup.parts["train"], setup.teacher)
    return with_repeated_views(setup.recipe, train)


def fill_cache(
    setup: Setup, device: torch.device, elsewhere: Elsewhere | None = None
) -> StoredTeacher:
    """Store what the recipe's method reads of its teacher, unless it is there.

    The teacher's outputs for test data, with which students are compared, are stored as well.

    Args:
        setup: of a recipe with `teacher.cache: disk`.
        device: where the teacher runs.
        elsewhere: runs it in place of this process.

    Raises:
        UserError: If the method asks its teacher nothing in training, or a file cannot be used.
    """
    recipe = setup.recipe
    method = recipe.method
    if not (method.uses_teacher and setup.teacher.models()):
        raise UserError(
            f"cache stores the outputs of a teacher, but {type(method).__name__} in this recipe "
            "has none; give a recipe with a teacher"
        )
    samples = training_samples(setup)
    for model in setup.teacher.models().values():
        model.to(device)
    teacher = cached_teacher(setup, samples, device, elsewhere)
    filled = recipe.task.connect_teacher(teacher, setup.student).with_taps(method.teacher_layers)
    if not isinstance(filled, StoredTeacher):
        raise UserError(
            f"the task ({type(recipe.task).__name__}) asks the teacher otherwise than for the "
            "outputs of single samples, so that nothing can be stored"
        )
    config = cache_of(recipe)
    if config is not None and is_one_pass(recipe.task):
        beside = _stored_beside(setup, config, "test", device)
        beside.elsewhere = elsewhere
        beside.with_taps([])
    return filled


def check_views_of(recipe: Recipe, samples: Samples) -> None:
    """Raise if training samples are augmented and their number of views is not given.

    Args:
        recipe: may ask for a cache.
        samples: the training data.

    Raises:
        UserError: If so.
    """
    config = cache_of(recipe)
    if config is not None and config.cache_views is None and _is_augmented(samples):
        refuse_views()


def without_cache(config: TeacherConfig) -> TeacherConfig:
    """Return the section of a teacher without a cache, for a dry run, which fills none."""
    return replace(config, cache="none", cache_views=None, cache_dtype="float32", cache_top_k=None)


def _view_by_view(samples: Samples, loading: EvalLoading, views: int) -> Iterator[Batch]:
    for view in range(views):
        keys = [(view, position) for position in range(len(samples))]
        yield from loading.batches(KeyedSamples(samples, keys))


def _is_augmented(samples: Samples) -> bool:
    """Return whether a sample has views; the first may be labeled, the last of a stream."""
    batch = Batch.of(samples.batch([(0, 0), (0, len(samples) - 1)]))
    return bool((batch.views != 0).any())


def _facts(setup: Setup, samples: Samples, is_drawn: bool) -> dict[str, Any]:
    """Return what the outputs of the teacher depend on."""
    recipe = setup.recipe
    teachers = {}
    for name, model in setup.teacher.models().items():
        teachers[name] = {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "architecture": hashlib.sha256(repr(model).encode()).hexdigest()[:16],
            "weights": state_hash(model),  # with the input statistics
        }
    return {
        "teachers": teachers,
        "task": f"{type(recipe.task).__module__}.{type(recipe.task).__qualname__}",
        "data": repr(recipe.data),
        "num_samples": len(samples),
        "files": samples.files_digest,
        "num_labels": recipe.num_labels if is_drawn else None,
        "streams": [[stream.name, stream.first, stream.size] for stream in samples.streams],
        # Runs of several seeds have the same samples unless the seed draws or augments them.
        "seed": recipe.seed if is_drawn else None,
    }
