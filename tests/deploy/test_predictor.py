from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.runs import make_recipe
from tutelage import Baseline, UserError, load
from tutelage.data import Coco
from tutelage.engine import fit
from tutelage.tasks import Detection
from tutelage.tasks.segmentation.metrics import SegmentationMetrics


def alone(run: Path, folder: Path) -> Path:
    """Return a copy of what a run's student needs, and nothing else."""
    folder.mkdir()
    for name in ("student.safetensors", "student.json"):
        shutil.copy(run / name, folder)
    return folder


def metrics_of(run: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run / "metrics.json").read_text())["test"]
    return metrics


def test_a_classifier_answers_as_it_was_evaluated(classifier: Path, tmp_path: Path) -> None:
    model = load(alone(classifier, tmp_path / "student"))
    assert not model.network.training
    assert list(model.classes.names) == ["class0", "class1", "class2"]
    files = sorted((classifier.parent / "photos/test").rglob("*.*"))
    answers = model.predict([str(file) for file in files])
    right = [
        answer["classes"][0]["class"] == file.parent.name
        for file, answer in zip(files, answers, strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(metrics_of(classifier)["top1"])
    assert sum(right) / len(right) > 0.6
    calibration = json.loads((classifier / "metrics.json").read_text())["calibration"]
    assert model.temperature == calibration["temperature"] != 1
    # The mean log-likelihood is that at the temperature.
    probabilities = [
        next(entry["probability"] for entry in answer["classes"] if entry["class"] == name)
        for answer, name in zip(answers, [file.parent.name for file in files], strict=True)
    ]
    nll = -float(np.log(probabilities).mean())
    assert nll == pytest.approx(calibration["test"]["nll"], abs=1e-4)


def test_one_image_may_be_a_path_a_picture_or_pixels(classifier: Path) -> None:
    model = load(classifier)
    file = next((classifier.parent / "photos/test/class1").glob("*.png"))
    with Image.open(file) as picture:
        picture.load()
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    answer = model.predict(file, top=2)
    assert len(answer["classes"]) == 2
    for image in (str(file), picture, pixels, pixels / 255):
        assert model.predict(image, top=2) == answer
    assert model.transform is not None
    inputs = model.transform(file)[None]
    assert inputs.shape == (1, 3, 8, 8)
    assert int(model.network(inputs).argmax()) == answer["classes"][0]["label"]
    # An image of another size is resized until it covers the size, and cropped.
    larger = picture.resize((40, 16))
    assert model.transform(larger).shape == (3, 8, 8)
    with pytest.raises(UserError, match="an image is a path, a PIL image, or a tensor"):
        model.predict(3)
    for top in (0, 2.5, True, "3"):
        with pytest.raises(UserError, match="--top"):
            model.predict(file, top=top)  # type: ignore[arg-type]


def test_boxes_come_with_the_category_ids_of_the_data(boxes: Path, tmp_path: Path) -> None:
    model = load(alone(boxes, tmp_path / "student"))
    assert model.classes.ids == [0, 1, 90]
    parts = Coco(str(boxes.parent / "coco"), val="val2017").splits()
    metrics = Detection(num_classes=3).metrics()
    for position, name in enumerate("ab"):
        found = model.predict(str(boxes.parent / f"coco/val2017/{name}.jpg"))["boxes"]
        assert found
        assert {(entry["class"], entry["label"], entry["id"]) for entry in found} <= {
            ("person", 1, 1),
            ("toothbrush", 2, 90),
        }
        detections = {
            "boxes": torch.tensor([entry["box"] for entry in found]),
            "labels": torch.tensor([entry["label"] for entry in found]),
            "scores": torch.tensor([entry["score"] for entry in found]),
        }
        metrics.update([detections], parts["test"].batch([(0, position)]))
    ap = metrics.compute()["ap"]
    assert ap == pytest.approx(metrics_of(boxes)["ap"], abs=1e-3)
    assert ap > 0.2


def test_masks_have_the_size_of_the_image_and_the_iou_of_the_run(
    segmenter: Path, tmp_path: Path
) -> None:
    model = load(alone(segmenter, tmp_path / "student"))
    voc = segmenter.parent / "voc/VOC2012"
    names = (voc / "ImageSets/Segmentation/val.txt").read_text().split()
    files = [voc / f"JPEGImages/{name}.jpg" for name in names]
    metrics = SegmentationMetrics(3, lambda output, batch: output)
    for name, (batch, answer) in zip(names, model.answers(files), strict=True):
        assert answer.overlay is not None
        assert answer.overlay.mask is not None
        mask = answer.overlay.mask
        assert mask.shape == batch["source_image"][0].shape[-2:]
        shares = {entry["label"]: entry["share"] for entry in answer.record["classes"]}
        assert sum(shares.values()) == pytest.approx(1)
        truth = torch.from_numpy(np.array(Image.open(voc / f"SegmentationClass/{name}.png"))).long()
        truth[truth == 255] = -100
        one_hot = torch.nn.functional.one_hot(mask, 3).permute(2, 0, 1)[None].float()
        metrics.update(one_hot, batch.with_fields({"labels": truth[None]}))
    assert metrics.compute()["miou"] == pytest.approx(metrics_of(segmenter)["miou"])


def test_a_run_made_in_python_needs_its_recipe(tmp_path: Path) -> None:
    fit(make_recipe(Baseline(), None, epochs=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"made in Python.*tutelage.load\(run, recipe\)"):
        load(tmp_path / "run")
    model = load(tmp_path / "run", make_recipe(Baseline(), None))
    assert model.transform is not None
    assert (model.transform.channels, model.transform.size) == (1, (8, 8))
    answer = model.predict(torch.zeros(3, 20, 30, dtype=torch.uint8))
    assert len(answer["classes"]) == 5


def test_a_picture_is_read_as_its_file_is(classifier: Path, tmp_path: Path) -> None:
    """Of 16 bits, lying on its side, or transparent."""
    model = load(classifier)
    deep = Image.fromarray(torch.linspace(0, 65535, 80).view(8, 10).numpy().astype(np.uint16))
    deep.save(tmp_path / "deep.png")
    lying = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(8, 10, 3))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    Image.new("RGBA", (9, 8), (200, 0, 0, 40)).save(tmp_path / "clear.png")
    for name in ("deep", "lying", "clear"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
        assert model.predict(picture) == model.predict(tmp_path / f"{name}.png"), name


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.full((3, 8, 8), 200.0), r"are in \[0, 1\], got 200 to 200; divide by 255"),
        (torch.full((3, 8, 8), -2.1), r"do not normalize: the network does it"),
        (torch.full((3, 8, 8), float("nan")), r"are in \[0, 1\], got nan to nan"),
        (torch.zeros(3, 0, 8), r"an image has pixels, got a tensor of shape \(3, 0, 8\)"),
    ],
)
def test_a_tensor_that_is_no_image_is_refused(
    classifier: Path, image: torch.Tensor, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        load(classifier).predict(image)


RGB: dict[str, object] = {"channels": 3, "size": [8, 8], "resize": "center-crop"}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"temperature": "warm"}, "'temperature' in .* is no positive number"),
        ({"temperature": 0}, "'temperature' in .* is no positive number"),
        ({"ids": [1]}, "'ids' in .* are not one for each class"),
        ({"input": "x"}, "'input' in .* does not say how images enter"),
        ({"input": {**RGB, "size": [0, 8]}}, "described by channels, size, .* got .*0, 8"),
        ({"input": {**RGB, "size": [8.5, 8]}}, "described by channels, size, .* got .*8.5, 8"),
        ({"input": {**RGB, "channels": 0}}, "described by channels, size, .* got .*0"),
        ({"classes": ["a", "b"]}, "'classes' in .* are 2, and its task has 3"),
        ({"mean": [float("nan")] * 3}, "'mean' in .* is no list of finite numbers"),
    ],
)
def test_a_damaged_record_is_named(
    classifier: Path, tmp_path: Path, entries: dict[str, object], says: str
) -> None:
    folder = alone(classifier, tmp_path / "student")
    facts = json.loads((folder / "student.json").read_text())
    (folder / "student.json").write_text(json.dumps(facts | entries))
    with pytest.raises(UserError, match=says):
        load(folder)


def test_what_is_no_run_is_said(tmp_path: Path, classifier: Path) -> None:
    with pytest.raises(UserError, match="there are no weights at"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"student.json is no folder of a run"):
        load(classifier / "student.json")
    with pytest.raises(UserError, match="is the path of its folder, got int"):
        load(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="home folder of '~nobody-here/x' is not known"):
        load("~nobody-here/x")
    assert load(classifier / "student.safetensors").folder == classifier
    folder = alone(classifier, tmp_path / "student")
    facts = json.loads((folder / "student.json").read_text())
    facts["input"]["resize"] = "somehow"
    (folder / "student.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="an input is described by"):
        load(folder)
    (folder / "student.json").unlink()
    with pytest.raises(UserError, match=r"student.json is missing; give the --out"):
        load(folder)
