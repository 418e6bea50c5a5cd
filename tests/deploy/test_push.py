"""A student that is shared in a folder and on a hub, and loaded from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import tutelage
from tests.helpers.hub import TOKEN, Hub, serve
from tutelage import UserError
from tutelage.cli import main
from tutelage.deploy.push import push
from tutelage.deploy.trust import check_trusted
from tutelage.engine.weights import load_weights
from tutelage.models import small_cnn

FILES = ["README.md", "config.json", "model.safetensors", "student.json", "student.safetensors"]
pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Serve a hub on this machine, with a token and a cache of its own."""
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield hub


def header(card: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return read


def same_answers(run: Path, shared: str | Path) -> None:
    image = torch.rand(3, 9, 13)
    assert tutelage.load(shared).predict(image) == tutelage.load(run).predict(image)


def test_a_folder_holds_the_student_with_its_card_and_loads_without_the_run(
    classifier: Path, tmp_path: Path
) -> None:
    pushed = push(classifier, str(tmp_path / "flowers"), license="apache-2.0")
    assert sorted(path.name for path in (tmp_path / "flowers").iterdir()) == pushed.files == FILES
    same_answers(classifier, tmp_path / "flowers")
    card = (tmp_path / "flowers/README.md").read_text()
    head = header(card)
    assert head["license"] == "apache-2.0"
    assert head["pipeline_tag"] == "image-classification"
    assert head["tags"] == ["knowledge-distillation", "kd"]
    metrics = json.loads((classifier / "metrics.json").read_text())
    (result,) = head["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {k: v for k, v in metrics["test"].items() if k != "num_samples"}
    assert "distilled with KD from small_cnn on ImageFolder" in card
    assert "- method: KD(temperature=4.0" in card
    assert 'tutelage.load("flowers")' in card
    assert "One run, so there is no spread" in card
    environment = json.loads((classifier / "environment.json").read_text())
    assert f"tutelage {environment['tutelage']}" in card


def test_a_run_of_a_study_has_the_spread_over_its_seeds(classifier: Path, tmp_path: Path) -> None:
    study = tmp_path / "study/kd"
    for seed, top1 in enumerate((0.5, 0.75, 1.0)):
        shutil.copytree(classifier, study / f"seed{seed}")
        recipe = study / f"seed{seed}/recipe.yaml"
        recipe.write_text(recipe.read_text().replace("seed: 0", f"seed: {seed}"))
        path = study / f"seed{seed}/metrics.json"
        metrics = json.loads(path.read_text())
        metrics["seed"] = seed
        metrics["test"]["top1"] = top1
        path.write_text(json.dumps(metrics))
    other = study / "seed3"  # another recipe, which is left out
    shutil.copytree(study / "seed0", other)
    text = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(text.replace("epochs: 3", "epochs: 4"))
    push(study / "seed1", str(tmp_path / "shared"))
    card = (tmp_path / "shared/README.md").read_text()
    assert "| top1 | 0.75 | 0.75 ± 0.25 |" in card
    assert "Seeds: 0, 1, 2." in card


def test_places_on_this_machine_are_not_shared(classifier: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(classifier, run)
    facts = json.loads((run / "student.json").read_text())
    facts["recipe"]["data"]["init_args"]["root"] = "/home/someone/photos"
    (run / "student.json").write_text(json.dumps(facts))
    push(run, str(tmp_path / "shared"))
    for path in (tmp_path / "shared").iterdir():
        assert b"someone" not in path.read_bytes()
    assert tutelage.load(tmp_path / "shared").data.root == "photos"  # type: ignore[attr-defined]


def test_a_folder_is_replaced_by_a_later_push_and_nothing_else_is(
    classifier: Path, tmp_path: Path
) -> None:
    push(classifier, str(tmp_path / "shared"))
    push(classifier, str(tmp_path / "shared"), license="mit")
    assert header((tmp_path / "shared/README.md").read_text())["license"] == "mit"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        push(classifier, str(tmp_path / "thesis"))
    with pytest.raises(UserError, match="holds other files"):
        push(classifier, str(classifier))
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match="no weights"):
        push(tmp_path / "unfinished", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"write owner/name, or \./flowers for a folder"):
        push(classifier, "flowers")


def test_damaged_weights_and_an_empty_license_are_not_shared(
    classifier: Path, tmp_path: Path
) -> None:
    shutil.copytree(classifier, tmp_path / "run")
    weights = tmp_path / "run/student.safetensors"
    with pytest.raises(UserError, match="the license is empty"):
        push(tmp_path / "run", str(tmp_path / "shared"), license=" ")
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"student.safetensors cannot be read as safetensors"):
        push(tmp_path / "run", str(tmp_path / "shared"))
    assert not (tmp_path / "shared").exists()


def test_a_hub_takes_it_and_gives_it_back(
    hub: Hub, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(classifier), "me/flowers", "--license", "mit"]) == 0
    assert sorted(hub.files["me/flowers"]) == FILES
    assert 'tutelage.load("hf://me/flowers")' in hub.files["me/flowers"]["README.md"].decode()
    assert "tutelage.load('hf://me/flowers')" in capsys.readouterr().out
    same_answers(classifier, "hf://me/flowers")
    same_answers(classifier, f"hf://me/flowers@{hub.commit('me/flowers')}")
    gets = [line for line in hub.requests if line.startswith("GET")]
    assert not any("model.safetensors" in line for line in gets)  # the same weights again


def test_weights_of_a_hub_start_a_network(hub: Hub, classifier: Path, tmp_path: Path) -> None:
    push(classifier, "hf://me/flowers")
    own = load_file(classifier / "student.safetensors")
    for source in ("hf://me/flowers", "hf://me/flowers/model.safetensors"):
        network = small_cnn(num_classes=3, channels=3, width=4)
        load_weights(network, source)
        assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


def test_a_recipe_names_a_teacher_on_a_hub(
    hub: Hub, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(classifier, "me/flowers")
    recipe = yaml.safe_load((classifier / "recipe.yaml").read_text())
    recipe["teacher"] = {
        "model": recipe["student"]["model"],
        "weights": "hf://me/flowers",
        "preflight": False,
    }
    recipe["train"]["epochs"] = 1
    (tmp_path / "hub.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(classifier.parent)
    out = tmp_path / "run"
    assert main(["train", str(tmp_path / "hub.yaml"), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    width4 = sum(value.numel() for value in small_cnn(3, 3, 4).parameters())
    assert metrics["parameters"]["teacher"] == width4


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hf://me/nothing", "no such repository, or it is private"),
        ("hf://me/flowers@v9", "no such revision"),
        ("hf://me/flowers/other.safetensors", "no such file"),
        ("hf://flowers", "write hf://owner/name"),
        ("hf://me/flowers/../../x", "write hf://owner/name"),
    ],
)
def test_what_is_not_on_the_hub_is_told(hub: Hub, classifier: Path, source: str, says: str) -> None:
    push(classifier, "me/flowers")
    with pytest.raises(UserError, match=says):
        load_weights(small_cnn(), source)


def test_without_a_token_or_a_connection_it_says_what_to_do(
    hub: Hub, classifier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert main(["push", str(classifier), "me/flowers"]) == 2
    said = capsys.readouterr().err
    assert "hf auth login" in said
    assert said.count("\n") == 1
    assert hub.files == {}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match="HF_ENDPOINT"):
        push(classifier, "me/flowers")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached"):
        tutelage.load("hf://me/flowers")


def test_code_of_unknown_origin_is_not_run(hub: Hub, classifier: Path, tmp_path: Path) -> None:
    push(classifier, "me/flowers")
    facts = json.loads(hub.files["me/flowers"]["student.json"])
    facts["recipe"]["student"]["model"] = {
        "class_path": "os.system",
        "init_args": {"command": f"touch {tmp_path / 'ran'}"},
    }
    hub.files["me/flowers"]["student.json"] = json.dumps(facts).encode()
    with pytest.raises(UserError, match=r"\['os.system'\].*trust_code=True"):
        tutelage.load("hf://me/flowers")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "model",
    [
        "subprocess.run",
        {"class_path": "torch.hub.load"},
        {"class_path": "./mynet.py:Net"},
        {"class_path": "torch.nn.Sequential", "init_args": {"args": ["os.system"]}},
        {
            "class_path": "transformers.AutoModel.from_pretrained",
            "init_args": {"trust_remote_code": True},
        },
    ],
)
def test_only_what_builds_networks_is_trusted(model: Any) -> None:
    with pytest.raises(UserError, match="which would run"):
        check_trusted({"student": {"model": model}}, "hf://me/x")
    known = {"class_path": "timm.create_model", "init_args": {"model_name": "resnet18.a1_in1k"}}
    check_trusted({"student": {"model": known}, "layers": ["features.conv"]}, "hf://me/x")


def test_a_class_with_the_hubs_mixin_loads_its_weights(classifier: Path, tmp_path: Path) -> None:
    from huggingface_hub import PyTorchModelHubMixin

    push(classifier, str(tmp_path / "shared"))

    class Net(nn.Module, PyTorchModelHubMixin):
        def __init__(self, num_classes: int, channels: int, width: int) -> None:
            super().__init__()
            network = small_cnn(num_classes=num_classes, channels=channels, width=width)
            for name, child in network.named_children():
                self.add_module(name, child)

    network = Net.from_pretrained(tmp_path / "shared")  # the arguments are from config.json
    own = load_file(classifier / "student.safetensors")
    state = network.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(own[name], state[name]) for name in own)
