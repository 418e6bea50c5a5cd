"""Previews: the same images for every method, boxes in the stored image's pixels, maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.helpers.dense import CLASSES, detection_recipe, write_shapes
from tests.helpers.runs import make_recipe
from tutelage import (
    KD,
    PCKA,
    Baseline,
    CombinedMethod,
    Distiller,
    FrozenTeacher,
    Method,
    NoTeacher,
    Step,
    Task,
    UserError,
)
from tutelage.cache import CachedTeacher
from tutelage.core import Batch, Overlay
from tutelage.core.task import Metrics
from tutelage.data import ArraySet, ImageData
from tutelage.drawing.overlay import TITLE_HEIGHT
from tutelage.engine import Recipe, StudentConfig, fit
from tutelage.engine.evaluate import EvalLoading
from tutelage.engine.previews import save_previews
from tutelage.engine.setup import Setup, TrainingSetup
from tutelage.tasks._overlays import mask_overlays


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs of a teacher, a student alone and one that PCKA taught."""
    out = tmp_path_factory.mktemp("detection")
    root = write_shapes(out / "data", {"train": 8, "val": 2, "test": 4})
    fit(detection_recipe(root, Baseline(), None, width=64), out / "teacher")
    fit(detection_recipe(root, Baseline(), None), out / "alone")
    pairs = {f"backbone[{level}]": f"backbone[{level}]" for level in (0, 1)}
    fit(
        detection_recipe(root, PCKA(pairs, patch_size="auto"), out / "teacher", ema_decay=0.9),
        out / "pcka",
    )
    return out


def pictures_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pictures/pictures.json").read_text())
    return found


def loaded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def test_every_run_keeps_the_same_images(runs: Path) -> None:
    alone, pcka = pictures_of(runs / "alone"), pictures_of(runs / "pcka")
    assert alone["classes"] == CLASSES
    assert [image["index"] for image in alone["images"]] == [0, 1, 2, 3]
    for one, other in zip(alone["images"], pcka["images"], strict=True):
        assert (one["truth"], one["file"], one["index"]) == (
            other["truth"],
            other["file"],
            other["index"],
        )
        assert (runs / "alone/pictures" / one["file"]).read_bytes() == (
            runs / "pcka/pictures" / other["file"]
        ).read_bytes()
        assert one["teacher"] is None
        assert (
            loaded(runs / "alone/pictures" / one["file"]).size
            == (one["width"], one["height"])
            == (128, 96)
        )


def test_the_boxes_are_those_of_the_file_and_of_the_networks(runs: Path) -> None:
    truth = json.loads((runs / "data/annotations/instances_test.json").read_text())
    first = pictures_of(runs / "pcka")["images"][0]
    x, y, width, height = truth["annotations"][0]["bbox"]
    assert first["truth"]["boxes"][0] == [x, y, x + width, y + height]
    assert first["truth"]["labels"][0] == truth["annotations"][0]["category_id"]
    assert first["truth"]["scores"] is None
    for who in ("student", "teacher"):
        scores = first[who]["scores"]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == len(first[who]["boxes"]) == len(first[who]["labels"]) <= 100
        assert all(0.05 <= score <= 1 for score in scores)
    assert first["teacher"] != first["student"]


def test_the_prediction_is_that_of_the_shipped_student(runs: Path) -> None:
    from tutelage.engine.weights import load_weights
    from tutelage.tasks._overlays import box_overlays

    recipe = detection_recipe(runs / "data", Baseline(), None)
    network = recipe.student.model
    load_weights(network, str(runs / "pcka"))
    test = recipe.data.splits()["test"]
    with torch.no_grad():
        found = box_overlays(network.eval()(test.batch([(0, 2)]).inputs))[0]
    kept = pictures_of(runs / "pcka")["images"][2]["student"]
    assert found.boxes is not None
    assert len(found.boxes)
    torch.testing.assert_close(
        torch.tensor(kept["boxes"]).view(-1, 4), found.boxes, atol=0.02, rtol=0
    )


def test_the_first_image_has_a_map_of_every_level(runs: Path) -> None:
    first, *others = pictures_of(runs / "pcka")["images"]
    assert list(first["maps"]) == ["backbone[0]", "backbone[1]"]
    for values in first["maps"].values():
        assert len(values) * len(values[0]) >= 16
        assert all(-1 <= value <= 1 for row in values for value in row)
    assert [image["maps"] for image in (*others, *pictures_of(runs / "alone")["images"])] == [
        {}
    ] * 7


def test_classification_keeps_no_pictures(teacher_run: Path, tmp_path: Path) -> None:
    fit(make_recipe(KD(), teacher_run, epochs=1), tmp_path / "run")
    assert not list((tmp_path / "run").glob("pictures*"))


class Pixels(Task):
    """A class for every pixel, from logits (N, K, H, W)."""

    monitor = "accuracy"
    fails = False

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        raise NotImplementedError

    def overlays(self, batch: Batch, output: Any = None) -> list[Overlay]:
        if self.fails:
            raise UserError("no luck")
        if output is not None:
            return mask_overlays(output.argmax(1))
        masks = (batch.inputs[:, 0] > 0.5).long()
        masks[:, :2] = -100
        return mask_overlays(masks)

    def metrics(self) -> Metrics:
        raise NotImplementedError

    def chance_level(self) -> float:
        return 0.0


class Corners(Pixels):
    """One box in the lower right quarter of every image."""

    def overlays(self, batch: Batch, output: Any = None) -> list[Overlay]:
        height, width = batch.inputs.shape[2:]
        boxes = torch.tensor([[width / 2, height / 2, width, height]])
        return [
            Overlay(
                boxes, torch.tensor([1]), None if output is None else torch.tensor([float("nan")])
            )
        ]


class Shows(KD):
    """Shows the teacher's output."""

    def agreement_maps(self, step: Step) -> dict[str, Tensor]:
        return {"shown": step.teacher.output[0, 0], "none": torch.tensor([[1.0, float("nan")]])}


class Toy(ImageData):
    """Images in memory."""

    mean, std = None, None

    def __init__(self, images: ArraySet, names: list[str]) -> None:
        self.images = images
        self.names = names

    @property
    def classes(self) -> list[str]:
        return self.names

    def raw_splits(self) -> Any:
        return self.images, self.images, self.images

    def standard_augmentation(self) -> None:
        return None


def make_ready(
    size: int,
    task: Task | None = None,
    method: Method | None = None,
    channels: int = 3,
    classes: list[str] | None = None,
) -> TrainingSetup:
    """Return what previews need of a run."""
    images = torch.randint(256, (3, channels, size, 2 * size), dtype=torch.uint8)
    data = Toy(ArraySet(images, torch.zeros(3, dtype=torch.int64)), classes or [])
    network, teacher = nn.Conv2d(channels, 4, 1), FrozenTeacher(nn.Conv2d(channels, 4, 1))
    task, method = task or Pixels(), method or Baseline()
    recipe = Recipe(data, task, StudentConfig(network), method)
    return TrainingSetup(
        setup=Setup(recipe, data.splits(), teacher, network),
        distiller=Distiller(network, NoTeacher(), method, task),
        optimizer=None,
        cap=None,
        sampler=None,
        training=None,
        loading=EvalLoading(8, 0, torch.device("cpu")),
        example=None,
    )


def test_masks_are_bytes_and_large_images_shrink(tmp_path: Path) -> None:
    parts = make_ready(400, classes=["a", "b", "c", "d"])
    save_previews(parts, tmp_path)
    found = pictures_of(tmp_path)["images"]
    assert len(found) == 3
    assert (found[0]["width"], found[0]["height"]) == (512, 256)
    sizes = {path.name: loaded(path).size for path in (tmp_path / "pictures").glob("*.*g")}
    assert len(sizes) == 3 * 4
    assert set(sizes.values()) == {(512, 256)}
    truth = loaded(tmp_path / "pictures" / found[0]["truth"]["mask"])
    assert set(truth.tobytes()) == {0, 1, 255}
    assert set(truth.crop((0, 0, 512, 1)).tobytes()) == {255}
    assert not parts.distiller.student.weight.grad
    assert parts.distiller.student.training


def test_boxes_shrink_with_their_image(tmp_path: Path) -> None:
    drawn = save_previews(make_ready(400, Corners(), classes=["a", "b"]), tmp_path)
    assert list(drawn) == ["previews/0", "previews/1", "previews/2"]
    assert drawn["previews/0"].shape == (256 + TITLE_HEIGHT, 3 * 512, 3)
    first = pictures_of(tmp_path)["images"][0]
    assert (first["width"], first["height"]) == (512, 256)
    assert first["truth"] == {"boxes": [[256, 128, 512, 256]], "labels": [1], "scores": None}
    assert first["student"]["scores"] == [None]  # JSON has no NaN


def test_maps_of_one_name_are_all_shown(tmp_path: Path) -> None:
    save_previews(make_ready(8, method=CombinedMethod([Shows(), Shows()])), tmp_path)
    first = pictures_of(tmp_path)["images"][0]
    assert list(first["maps"]) == ["shown", "none", "shown#2", "none#2"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_images_of_any_channels(channels: int, mode: str, tmp_path: Path) -> None:
    save_previews(make_ready(8, channels=channels), tmp_path)
    assert loaded(tmp_path / "pictures/0.jpg").mode == mode


def test_a_teacher_that_remembers_looks_at_new_images(tmp_path: Path) -> None:
    parts = make_ready(8, method=Shows())
    teacher = parts.setup.teacher
    training, new = (parts.setup.parts["train"].batch([(0, position)]) for position in (2, 0))
    memory = CachedTeacher(teacher, Pixels(), lambda: [training], 1).with_taps([])
    parts.distiller.teacher = memory
    save_previews(parts, tmp_path)
    first, *others = pictures_of(tmp_path)["images"]
    torch.testing.assert_close(
        torch.tensor(first["maps"]["shown"]), teacher.model(new.inputs)[0, 0], atol=1e-4, rtol=0
    )
    assert first["maps"]["none"] == [[1.0, None]]  # JSON has no NaN
    assert [image["maps"] for image in others] == [{}, {}]
    assert parts.distiller.teacher is memory


def test_pictures_are_whole_or_not_there_and_never_lose_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_ready(20, classes=["a"])
    save_previews(parts, tmp_path)
    before = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    tmp_path.chmod(0o750)
    save_previews(parts, tmp_path)
    assert (tmp_path / "pictures").stat().st_mode == tmp_path.stat().st_mode
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == before
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Pixels, "fails", True)
    parts.setup.recipe.data.names = ["b"]
    save_previews(parts, tmp_path)
    assert capsys.readouterr().err == "warning: no pictures for the report: UserError: no luck\n"
    assert pictures_of(tmp_path)["classes"] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
