"""What a run keeps to look at: the same images for every method, boxes in the stored image's pixels, patch maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.dense import CLASSES, detection_recipe, write_shapes
from tests.runs import make_recipe
from tutelage import KD, PCKA, Absent, Alone, Distiller, Method, Network, Step, Task, UserError
from tutelage.cache import Remembered
from tutelage.core import Sketch
from tutelage.core.task import Metrics
from tutelage.data import ArraySet, Splits
from tutelage.engine import fit
from tutelage.engine.assemble import Assembly
from tutelage.engine.pictures import keep_pictures
from tutelage.tasks.sketch import mask_sketch


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs of a teacher, a student alone and one that PCKA taught."""
    out = tmp_path_factory.mktemp("detection")
    root = write_shapes(out / "data", {"train": 8, "val": 2, "test": 4})
    fit(detection_recipe(root, Alone(), None, width=64), out / "teacher")
    fit(detection_recipe(root, Alone(), None), out / "alone")
    pairs = {f"backbone[{level}]": f"backbone[{level}]" for level in (0, 1)}
    fit(detection_recipe(root, PCKA(pairs, patch="auto"), out / "teacher", ema=0.9), out / "pcka")
    return out


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pictures/pictures.json").read_text())
    return found


def loaded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def test_every_run_keeps_the_same_images(runs: Path) -> None:
    alone, pcka = told(runs / "alone"), told(runs / "pcka")
    assert alone["classes"] == CLASSES
    assert [image["index"] for image in alone["images"]] == [0, 1, 2, 3]
    for one, other in zip(alone["images"], pcka["images"], strict=True):
        assert (one["truth"], one["file"], one["index"]) == (other["truth"], other["file"], other["index"])
        assert (runs / "alone/pictures" / one["file"]).read_bytes() == (
            runs / "pcka/pictures" / other["file"]
        ).read_bytes()
        assert one["teacher"] is None
        assert loaded(runs / "alone/pictures" / one["file"]).size == (one["width"], one["height"]) == (128, 96)


def test_the_boxes_are_those_of_the_file_and_of_the_networks(runs: Path) -> None:
    truth = json.loads((runs / "data/annotations/instances_test.json").read_text())
    first = told(runs / "pcka")["images"][0]
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
    from tutelage.tasks.sketch import boxes_sketch

    recipe = detection_recipe(runs / "data", Alone(), None)
    network = recipe.student.network
    load_weights(network, str(runs / "pcka"))
    test = recipe.data.splits().test
    with torch.no_grad():
        found = boxes_sketch(network.eval()([test[2][0]]))[0]
    kept = told(runs / "pcka")["images"][2]["student"]
    assert found.boxes is not None
    assert len(found.boxes)
    torch.testing.assert_close(torch.tensor(kept["boxes"]).view(-1, 4), found.boxes, atol=0.02, rtol=0)


def test_the_first_image_has_a_map_of_every_level(runs: Path) -> None:
    first, *others = told(runs / "pcka")["images"]
    assert list(first["maps"]) == ["backbone[0]", "backbone[1]"]
    for values in first["maps"].values():
        assert len(values) * len(values[0]) >= 16
        assert all(-1 <= value <= 1 for row in values for value in row)
    assert [image["maps"] for image in (*others, *told(runs / "alone")["images"])] == [{}] * 7


def test_classification_keeps_no_pictures(teacher_run: Path, tmp_path: Path) -> None:
    fit(make_recipe(KD(), teacher_run, epochs=1), tmp_path / "run")
    assert not list((tmp_path / "run").glob("pictures*"))


class Pixels(Task):
    """A class for every pixel, from logits (N, K, H, W)."""

    select = "accuracy"
    fails = False

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch[0],)

    def loss(self, out: Any, batch: Any) -> Tensor:
        raise NotImplementedError

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch]:
        if self.fails:
            raise UserError("no luck")
        if out is not None:
            return mask_sketch(out.argmax(1))
        masks = (batch[0][:, 0] > 0.5).long()
        masks[:, :2] = -100
        return mask_sketch(masks)

    def metrics(self) -> Metrics:
        raise NotImplementedError

    def chance(self) -> float:
        return 0.0


class Corners(Pixels):
    """One box in the lower right quarter of every image."""

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch]:
        height, width = batch[0].shape[2:]
        boxes = torch.tensor([[width / 2, height / 2, width, height]])
        return [Sketch(boxes, torch.tensor([1]), None if out is None else torch.tensor([float("nan")]))]


class Shows(KD):
    """Shows what the teacher told."""

    def inspect(self, step: Step) -> dict[str, Tensor]:
        return {"told": step.teacher.out[0, 0], "none": torch.tensor([[1.0, float("nan")]])}


def put_together(size: int, task: Task | None = None, method: Method | None = None, channels: int = 3) -> Assembly:
    """Return what pictures need of a run."""
    images = torch.randint(256, (3, channels, size, 2 * size), dtype=torch.uint8)
    data = ArraySet(images, torch.zeros(3, dtype=torch.int64))
    network, teacher = nn.Conv2d(channels, 4, 1), Network(nn.Conv2d(channels, 4, 1))
    distiller = Distiller(network, Absent(), method or Alone(), task or Pixels())
    return Assembly(
        distiller=distiller,
        teacher=teacher,
        sampler=None,
        training=None,
        validation=None,
        test=None,
        example=None,
        splits=Splits(data, data, data),
        move=lambda batch: batch,
    )


def test_masks_are_bytes_and_large_images_shrink(tmp_path: Path) -> None:
    parts = put_together(400)
    keep_pictures(parts, tmp_path, ["a", "b", "c", "d"])
    found = told(tmp_path)["images"]
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
    keep_pictures(put_together(400, Corners()), tmp_path, ["a", "b"])
    first = told(tmp_path)["images"][0]
    assert (first["width"], first["height"]) == (512, 256)
    assert first["truth"] == {"boxes": [[256, 128, 512, 256]], "labels": [1], "scores": None}
    assert first["student"]["scores"] == [None]  # JSON has no NaN


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_images_of_any_channels(channels: int, mode: str, tmp_path: Path) -> None:
    keep_pictures(put_together(8, channels=channels), tmp_path, [])
    assert loaded(tmp_path / "pictures/0.jpg").mode == mode


def test_a_teacher_that_remembers_looks_at_new_images(tmp_path: Path) -> None:
    parts = put_together(8, method=Shows())
    assert parts.teacher is not None
    training, new = (parts.splits.train.__getitems__([position]) for position in (2, 0))
    memory = Remembered(parts.teacher, Pixels(), lambda: [training], 1).tapped([])
    parts.distiller.teacher = memory
    keep_pictures(parts, tmp_path, [])
    first, *others = told(tmp_path)["images"]
    torch.testing.assert_close(
        torch.tensor(first["maps"]["told"]), parts.teacher.network(new[0])[0, 0], atol=1e-4, rtol=0
    )
    assert first["maps"]["none"] == [[1.0, None]]  # JSON has no NaN
    assert [image["maps"] for image in others] == [{}, {}]
    assert parts.distiller.teacher is memory


def test_pictures_are_whole_or_not_there_and_never_lose_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = put_together(20)
    keep_pictures(parts, tmp_path, ["a"])
    before = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    (tmp_path / "pictures.tmp").mkdir()  # of a run that was killed
    keep_pictures(parts, tmp_path, ["a"])
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == before
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Pixels, "fails", True)
    keep_pictures(parts, tmp_path, ["b"])
    assert capsys.readouterr().err == "warning: no pictures for the report: UserError: no luck\n"
    assert told(tmp_path)["classes"] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
