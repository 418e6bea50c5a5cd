"""The recipes of the papers' ImageNet pairs, checked on a few small images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.commands import write_image_folder
from tutelage import Batch, Distiller, FrozenTeacher
from tutelage.engine.dry_run import check_recipe
from tutelage.recipes import parse_recipe, shipped_names

RECIPES = [name for name in shipped_names() if name.startswith("classification/imagenet/")]


def of_few_classes(recipe: str, data: Path) -> list[str]:
    """Return what makes a recipe small: three classes, eight images a batch, no teacher weights."""
    config = parse_recipe(recipe).config
    options = [
        f"--data.root={data}",
        "--train.batch_size=8",
        "--train.num_workers=0",
        "--teacher.weights=null",
    ]
    for section in ("student", "teacher"):
        where = "dict_kwargs" if "dict_kwargs" in config[section].model else "init_args"
        options.append(f"--{section}.model.{where}.num_classes=3")
    return [*options, "--task.num_classes=3"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_an_imagenet_pair_fits_its_networks(name: str) -> None:
    write_image_folder(Path("photos"))
    options = of_few_classes(name, Path("photos"))
    assert parse_recipe(name, options).config.data.init_args.size == 224
    if "/ofa/" not in name:  # convolutional networks take any size
        options.append("--data.size=64")
    check_recipe(parse_recipe(name, options).build())


@pytest.mark.parametrize(
    ("pair", "millions"),
    [
        ("deit_resnet18", 3.04),
        ("swin_mobilenet_v2", 7.14),
        ("resnet50_deit_tiny", 4.48),
    ],
)
def test_the_branches_of_a_pair_have_the_published_size(pair: str, millions: float) -> None:
    write_image_folder(Path("photos"))
    name = f"classification/imagenet/ofa/{pair}"
    recipe = parse_recipe(name, of_few_classes(name, Path("photos"))).build()
    teacher = FrozenTeacher(recipe.teacher.model)
    distiller = Distiller(recipe.student.model, teacher, recipe.method, recipe.task)
    example = {"inputs": torch.rand(2, 3, 224, 224), "labels": torch.tensor([0, 1])}
    distiller.setup(Batch(example))
    missing = sum(
        997 * (branch.classifier.in_features + 1) for branch in recipe.method.branches
    )  # of 1000 classes
    count = sum(p.numel() for p in recipe.method.parameters())
    assert (count + missing) / 1e6 == pytest.approx(millions, abs=0.005)


def test_there_are_recipes_of_both_pairs_and_of_unlike_ones() -> None:
    pairs = {
        "resnet18/rcka",
        "mobilenet_v1/rcka",
        "resnet18/ckd",
        "mobilenet_v1/ckd",
        "ofa/deit_resnet18",
    }
    assert {f"classification/imagenet/{pair}" for pair in pairs} <= set(RECIPES)
