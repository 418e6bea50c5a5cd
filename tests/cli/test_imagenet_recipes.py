"""The recipes of the papers' ImageNet pairs, planned on a tiny folder of images with few classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tutelage import Distiller, Network
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


@pytest.mark.parametrize(
    ("name", "millions"),
    [("ofa_deit_resnet18", 3.04), ("ofa_swin_mobilenet_v2", 7.14), ("ofa_resnet50_deit_tiny", 4.48)],
)
def test_the_branches_of_a_pair_have_the_published_size(name: str, millions: float) -> None:
    write_image_folder(Path("photos"))
    path = next(path for path in RECIPES if path.stem == name)
    recipe = parse_recipe(path, of_few_classes(path, Path("photos"))).build()
    teacher = Network(recipe.teacher.network)
    distiller = Distiller(recipe.student.network, teacher, recipe.method, recipe.task)
    distiller.setup((torch.rand(2, 3, 224, 224), torch.tensor([0, 1])))
    missing = sum(997 * (branch.classifier.in_features + 1) for branch in recipe.method.branches)  # of 1000 classes
    count = sum(p.numel() for p in recipe.method.parameters())
    assert (count + missing) / 1e6 == pytest.approx(millions, abs=0.005)


def test_there_are_recipes_of_both_pairs_and_of_unlike_ones() -> None:
    names = {path.stem for path in RECIPES}
    assert {"rcka_resnet18", "rcka_mobilenet_v1", "ckd_resnet18", "ckd_mobilenet_v1", "ofa_deit_resnet18"} <= names
