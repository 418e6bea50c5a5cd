"""Networks of the user's own, and of other libraries, work in a recipe at first try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.commands import part, write_recipe
from tutelage import UserError
from tutelage.recipes import parse_recipe
from tutelage.recipes.own_code import with_files

NET = """
from torch import nn
import {beside}

class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.head = nn.Linear(64, 10 * {beside}.FACTOR)

def build(width=4):
    return Net(width)
"""


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Return the name of a module in a folder `own`, whose recipe is used from its parent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = f"net_{abs(hash(request.node.name)) % 10**8}"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"{name}.py").write_text(NET.format(beside=f"{name}_beside"))
    (tmp_path / "own" / f"{name}_beside.py").write_text("FACTOR = 1")
    return name


def build(class_path: str, arguments: dict[str, Any] | None = None) -> nn.Module:
    model = {"class_path": class_path, "init_args": arguments or {}}
    recipe = parse_recipe(write_recipe("own/mine.yaml", student={"model": model})).build()
    return recipe.student.model.eval()


@pytest.mark.parametrize("kind", ["{}.Net", "{}.build", "./{}.py:Net", "own/{}.py:build"])
def test_a_module_beside_the_recipe_is_found(kind: str, name: str, tmp_path: Path) -> None:
    network = build(kind.format(name), {"width": 3})
    assert type(network).__name__ == "Net"
    # The resolved recipe names the file, so that it is found from any folder.
    text = parse_recipe("own/mine.yaml").text()
    assert f"class_path: {tmp_path.resolve()}/own/{name}.py:" in text
    (tmp_path / "elsewhere.yaml").write_text(text)
    assert type(parse_recipe("elsewhere.yaml").build().student.model).__name__ == "Net"


@pytest.mark.parametrize("kind", ["own/{}.py:Net", "./own/{}.py:build"])
@pytest.mark.parametrize("key", ["--student.model", "--student.model.class_path"])
def test_a_file_is_found_on_the_command_line(
    kind: str, key: str, name: str, tmp_path: Path
) -> None:
    recipe = write_recipe("mine.yaml")
    given = kind.format(name)
    for overrides in ([key, given], [f"{key}={given}"]):
        parsed = parse_recipe(recipe, overrides)
        assert type(parsed.build().student.model).__name__ == "Net"
        assert f"class_path: {tmp_path.resolve()}/own/{name}.py:" in parsed.text()
    with pytest.raises(UserError, match=r"^on the command line: there is no file nowhere\.py for "):
        parse_recipe(recipe, [key, "nowhere.py:Net"])


def test_a_module_in_the_working_folder_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}_here.py").write_text(
        "from torch import nn\nclass Net(nn.Identity): pass\n"
    )
    assert type(build(f"{name}_here.Net")).__name__ == "Net"


def test_what_is_wrong_in_an_own_file_is_said(name: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / f"{name}_broken.py"
    file.write_text("import torch\nimport nothing_of_that_name\n")
    says = rf"{name}_broken.py cannot be imported: ModuleNotFoundError: No module named 'nothing_of"
    for path in (f"{name}_broken.Net", f"./{name}_broken.py:Net"):
        with pytest.raises(UserError, match=says):
            build(path)
    with pytest.raises(UserError, match=r"has no 'Nett'; did you mean \['Net'\]"):
        build(f"./{name}.py:Nett")
    with pytest.raises(UserError, match=r"there is no file ./nowhere.py for ./nowhere.py:Net"):
        build("./nowhere.py:Net")


def test_what_a_function_hands_on_may_stand_under_init_args(name: str) -> None:
    pytest.importorskip("timm")
    network = build("timm.create_model", {"model_name": "resnet10t", "num_classes": 7})
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    text = parse_recipe("own/mine.yaml").text()
    assert "dict_kwargs:" in text
    with pytest.raises(UserError, match="cannot be built: TypeError"):
        build("timm.create_model", {"model_name": "resnet10t", "num_clases": 7})
    assert (
        build(
            "torchvision.models.get_model", {"name": "resnet18", "num_classes": 5}
        ).fc.out_features
        == 5
    )


@pytest.mark.parametrize(
    "path",
    [
        "torchvision.models.mobilenet_v3_small",
        "torchvision.models.googlenet",
        "torchvision.models.vit_b_32",
        "torchvision.models.segmentation.lraspp_mobilenet_v3_large",
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
def test_networks_of_torchvision_take_their_arguments(path: str, name: str) -> None:
    arguments = {"num_classes": 3}
    if "segmentation" in path:
        arguments["weights_backbone"] = None
    assert isinstance(build(path, arguments), nn.Module)


def test_auto_classes_of_transformers_make_networks(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(num_labels=3, depth_multiplier=0.35)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained("hub")
    for path in ("", ".from_pretrained"):
        network = build(
            f"transformers.AutoModelForImageClassification{path}",
            {"pretrained_model_name_or_path": "hub"},
        )
        assert network.config.num_labels == 3


def test_only_class_paths_are_named_by_files() -> None:
    text = "class_path: own.Net\n  note: own.Net\nclass_path: own.deep.Net\n"
    expected = "class_path: /a/own.py:Net\n  note: own.Net\nclass_path: own.deep.Net\n"
    assert with_files(text, {"own": Path("/a/own.py")}) == expected
    assert part("data.Digits")["class_path"] == "tutelage.data.Digits"
