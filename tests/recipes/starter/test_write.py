"""Recipes that `tutelage init` writes run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers.own_data import LAYOUTS, write_tree
from tutelage import UserError
from tutelage.cli import main
from tutelage.recipes.starter import look_at, recipe_texts, write_recipes
from tutelage.recipes.starter.yaml_text import WIDTH

# Of the library `datasets`, which leaves files open.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

QUICK = {"epochs": 1, "eval_every": 1, "num_workers": 0}  # of teacher and student


def init(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Write the recipes for a layout, in a working folder of its own."""
    monkeypatch.chdir(root)
    LAYOUTS[name][0](root / "data")
    assert main(["init", "data", "--out", "mine"]) == 0
    return sorted(path for path in (root / "mine").glob("*.yaml") if path.name[0] != "_")


@pytest.mark.parametrize("name", ["table", "masks", "interactions"])
def test_the_commands_that_are_named_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    init(tmp_path, name, monkeypatch)
    said = capsys.readouterr().out
    plan = f"plan mine/{LAYOUTS[name][2]}.yaml"
    assert f"next: tutelage {plan}\n" in said
    assert "tutelage study mine --seeds 3 --out runs/mine\n" in said
    assert main([*plan.split(), "--train.num_workers", "0"]) == 0
    assert "steps of" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # such as of a validation part of a few images
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_recipe_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    paths = init(tmp_path, name, monkeypatch)
    assert len(paths) >= 4
    for path in paths:
        assert main(["plan", str(path), "--train.num_workers", "0"]) == 0, path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_first_recipe_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    init(tmp_path, name, monkeypatch)
    setting = tmp_path / "mine" / "_setting.yaml"
    content = yaml.safe_load(setting.read_text())
    content["train"] |= QUICK
    content["teacher"]["preflight"] = False  # a teacher of one epoch is at chance
    setting.write_text(yaml.safe_dump(content))
    assert main(["train", f"mine/{LAYOUTS[name][2]}.yaml", "--out", "run"]) == 0
    assert (tmp_path / "run" / "student.safetensors").is_file()


def test_commands_for_folders_with_spaces_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "my däta")
    assert main(["init", "my däta", "--out", "my recipes"]) == 0
    said = capsys.readouterr().out
    assert "next: tutelage plan 'my recipes/dist.yaml'\n" in said
    assert "tutelage study 'my recipes' --seeds 3 --out 'runs/my recipes'\n" in said
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["init", "../my däta", "--out", "."]) == 0
    assert "tutelage study . --seeds 3 --out runs/here\n" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    found = look_at(write_tree(tmp_path / "data"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kd.yaml").write_text("# edited\n")
    with pytest.raises(UserError, match=r"kd\.yaml is there already, and nothing is overwritten"):
        write_recipes(found, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["kd.yaml"]


def test_small_images_get_small_networks(tmp_path: Path) -> None:
    small = recipe_texts(look_at(write_tree(tmp_path / "small")))
    large = recipe_texts(look_at(write_tree(tmp_path / "large", side=100)))
    assert "tutelage.models.small_cnn" in small["_setting.yaml"]
    assert "torchvision.models.resnet18" in large["_setting.yaml"]
    assert "torchvision.models.resnet50" in large["teacher.yaml"]
    assert yaml.safe_load(large["_setting.yaml"])["data"]["init_args"]["size"] == 96


@pytest.mark.parametrize(("name", "aligned"), [("image-folder", "both"), ("multi-label", None)])
def test_rcka_aligns_probabilities_where_an_image_has_one_class(
    tmp_path: Path, name: str, aligned: str | None
) -> None:
    LAYOUTS[name][0](tmp_path / "data")
    method = yaml.safe_load(recipe_texts(look_at(tmp_path / "data"))["rcka.yaml"])["method"]
    assert method["class_path"] == "tutelage.methods.RCKA"
    assert method["init_args"].get("soften") == aligned


@pytest.mark.parametrize("name", LAYOUTS)
def test_settings_are_yaml_with_comments(tmp_path: Path, name: str) -> None:
    write, _, start = LAYOUTS[name]
    write(tmp_path / "data")
    texts = recipe_texts(look_at(tmp_path / "data"))
    assert list(texts)[:2] == ["_setting.yaml", f"{start}.yaml"]
    setting = texts["_setting.yaml"]
    assert {"data", "task", "teacher", "student", "train"} <= set(yaml.safe_load(setting))
    assert setting.count("#") > 8
    long = [line for line in setting.splitlines() if len(line) > WIDTH and "/" not in line]
    assert not long
