"""The recipes of the papers' ImageNet pairs, planned on a tiny folder of images with few classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tutelage.cli.recipes import parse_recipe
from tutelage.engine.rehearse import rehearse

from .support import write_image_folder

RECIPES = sorted((Path(__file__).parents[2] / "recipes/classification/imagenet").glob("*.yaml"))


def of_few_classes(recipe: Path, data: Path) -> list[str]:
    """Return what makes a recipe small: three classes, eight images a batch, no weights of the teacher's."""
    content = yaml.safe_load(recipe.read_text())
    options = [f"--data.root={data}", "--train.batch_size=8", "--train.workers=0", "--teacher.weights=null"]
    for name in ("student", "teacher"):
        network = content[name]["network"]
        where = "dict_kwargs" if "dict_kwargs" in network else "init_args"
        options.append(f"--{name}.network.{where}.num_classes=3")
    return [*options, "--task.num_classes=3"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_an_imagenet_pair_fits_its_networks(path: Path) -> None:
    write_image_folder(Path("photos"))
    options = of_few_classes(path, Path("photos"))
    assert parse_recipe(path, options).config.data.init_args.size == 224
    if not path.stem.startswith("ofa"):  # convolutional networks take any size
        options.append("--data.size=64")
    rehearse(parse_recipe(path, options).build())


def test_there_are_recipes_of_both_pairs_and_of_unlike_ones() -> None:
    names = {path.stem for path in RECIPES}
    assert {"rcka_resnet18", "rcka_mobilenet_v1", "ckd_resnet18", "ckd_mobilenet_v1", "ofa_deit_resnet18"} <= names
