from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from tutelage import UserError, load
from tutelage.cli.export import _lines
from tutelage.data.image_input import ImageInput
from tutelage.deploy.check import compare
from tutelage.deploy.export import export
from tutelage.deploy.formats import Format, write_format
from tutelage.deploy.served import Served, ServedNetwork
from tutelage.models import faster_rcnn, fpn_backbone, retinanet, small_pose
from tutelage.tasks import Detection, Pose

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _beside_the_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the run's data lies, which its recipe names relatively."""
    for name in ("classifier", "segmenter", "boxes"):
        if name in request.fixturenames:
            monkeypatch.chdir(request.getfixturevalue(name).parent)


@pytest.mark.parametrize("kind", ["onnx", "torch-export", "torchscript", "safetensors"])
def test_a_classifier_is_the_same_in_every_format(
    classifier: Path, tmp_path: Path, kind: Format
) -> None:
    file = tmp_path / "student"
    record = export(classifier, kind, out=file, latency=False)
    assert record["check"]["images"] == 8
    assert record["check"]["relative_difference"] <= 1e-5
    assert json.loads(file.with_name("student.json").read_text()) == record
    assert record["classes"] == ["class0", "class1", "class2"]
    assert record["normalization"]["mean"] == [0.485, 0.456, 0.406]
    assert record["normalization"]["inside"] == (kind != "safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student", "student.json"]


def test_onnx_gives_probabilities_at_the_temperature_for_any_batch(
    classifier: Path, tmp_path: Path
) -> None:
    record = export(classifier, out=tmp_path / "a.onnx", latency=False, opset=18)
    assert record["opset"] == 18
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    model = load(classifier)
    files = sorted((classifier.parent / "photos/test/class1").iterdir())[:5]
    assert model.transform is not None
    images = torch.stack([model.transform(file) for file in files])
    (logits,) = session.run(None, {"images": images.numpy()})
    probabilities = torch.from_numpy(logits).softmax(1)
    for row, answer in zip(probabilities, model.predict(files), strict=True):
        found = {entry["label"]: entry["probability"] for entry in answer["classes"]}
        assert [found[label] for label in range(3)] == pytest.approx(row.tolist(), abs=1e-5)


def test_int8_and_latency_stand_beside_teacher_and_student(
    classifier: Path, tmp_path: Path
) -> None:
    record = export(classifier, out=tmp_path / "a.onnx", int8=True)
    int8 = record["int8"]
    assert int8["calibration_images"] == 108
    before = int8["validation"]["before"]["top1"]
    metrics = json.loads((classifier / "metrics.json").read_text())
    assert before == pytest.approx(metrics["validation"]["top1"])
    assert abs(int8["validation"]["after"]["top1"] - before) <= 0.1
    # What the file itself holds is eight bits.
    import onnx

    model = onnx.load(int8["file"])
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in types
    median = record["latency_ms"]["median"]
    names = ["teacher", "student", "student, onnxruntime", "student, int8"]
    assert list(median) == names
    assert all(set(values) == {"1", "32"} for values in median.values())
    assert all(value > 0 for values in median.values() for value in values.values())


def test_a_teacher_that_is_gone_is_not_timed_and_the_export_is_whole(
    classifier: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(classifier, tmp_path / "run"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["teacher"]["model"] = {"class_path": "./gone.py:Net"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    record = export(run, "safetensors")
    assert list(record["latency_ms"]["median"]) == ["student"]
    assert "there is no file ./gone.py" in record["latency_ms"]["without_teacher"]
    assert json.loads((run / "export/student.safetensors.json").read_text()) == record
    assert f"  the teacher was not timed: {run}" in "\n".join(_lines(record))


def test_a_segmenter_takes_images_of_any_size(segmenter: Path, tmp_path: Path) -> None:
    record = export(segmenter, out=tmp_path / "a.onnx", latency=False)
    assert record["input"]["shape"] == ["batch", 3, "height", "width"]
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    images = torch.rand(2, 3, 40, 56)
    (logits,) = session.run(None, {"images": images.numpy()})
    assert logits.shape == (2, 3, 40, 56)
    with torch.no_grad():
        own = load(segmenter).network(images)
    assert np.abs(logits - own.numpy()).max() < 1e-4
    with pytest.raises(UserError, match="int8 needs images of one size"):
        export(segmenter, int8=True)


def check_detector(run: Path, folder: Path) -> None:
    record = export(run, out=folder / "a.onnx")
    assert record["check"]["relative_difference"] <= 1e-4
    assert record["outputs"] == ["boxes", "labels", "scores"]
    assert record["ids"] == [0, 1, 90]
    assert set(record["latency_ms"]["median"]["student"]) == {"1"}
    session = onnxruntime.InferenceSession(str(folder / "a.onnx"))
    for name in "ab":
        file = run.parent / f"coco/val2017/{name}.jpg"
        model = load(run)
        assert model.transform is not None
        boxes, labels, scores = session.run(None, {"images": model.transform(file).numpy()})
        found = model.predict(file)["boxes"]
        assert found
        order = np.argsort(-scores, kind="stable")[: len(found)]
        assert [entry["label"] for entry in found] == labels[order].tolist()
        for entry, corners in zip(found, boxes[order], strict=True):
            assert entry["box"] == pytest.approx(corners.tolist(), abs=0.02)


def test_fcos_is_exported_for_images_of_any_size(boxes: Path, tmp_path: Path) -> None:
    check_detector(boxes, tmp_path)
    with pytest.raises(UserError, match="one for images of one size; take --format onnx"):
        export(boxes, "torchscript", out=tmp_path / "b")
    with pytest.raises(UserError, match="detectors are not quantized"):
        export(boxes, int8=True)
    with pytest.raises(UserError, match=r"torch.export cannot follow .*take --format onnx"):
        export(boxes, "torch-export", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("build", [retinanet, faster_rcnn])
def test_the_other_detectors_are_exported(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    backbone = fpn_backbone("mobilenetv3_small_050", width=32, extra=None)
    network = build(backbone, num_classes=3, sides=[96], strides=[8, 16, 32]).eval()
    network.score_thresh = 0.0  # of RetinaNet, which is not trained and sure of nothing
    network.detections_per_img = 20
    if build is retinanet:  # it starts with scores that differ by rounding alone
        for layer in network.head.classification_head.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    inputs = [torch.rand(3, 72, 96), torch.rand(3, 80, 64), torch.rand(3, 100, 100)]
    names = ["boxes", "labels", "scores"]
    task = Detection(num_classes=3)
    what = Served(
        ServedNetwork(network, task, takes_list=True, temperature=1.0),
        ImageInput(3, batch="list"),
        inputs,
        names,
    )
    assert len(what.outputs(inputs[0])[0]) > 5
    assert write_format(what, "onnx", tmp_path / "a.onnx", None) == "TorchScript"
    found = compare(what, "onnx", tmp_path / "a.onnx")
    assert found.num_images == 3
    assert found.relative <= 1e-4


def test_heat_maps_are_those_of_the_last_stack(tmp_path: Path) -> None:
    network = small_pose(num_joints=5, width=8, stages=2).eval()
    inputs = [torch.rand(3, 3, 32, 32), torch.rand(1, 3, 32, 32)]
    what = Served(
        ServedNetwork(network, Pose(num_joints=5), takes_list=False, temperature=1.0),
        ImageInput(3, (32, 32), "region"),
        inputs,
        ["heatmaps"],
    )
    assert torch.equal(what.outputs(inputs[0])[0], network(inputs[0])[:, -1])
    assert write_format(what, "onnx", tmp_path / "a.onnx", None) == "torch.export"
    assert compare(what, "onnx", tmp_path / "a.onnx").relative <= 1e-5


def test_a_wrong_place_or_number_is_said_before_anything_is_written(
    classifier: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"a picture")
    for options, says in (
        ({"out": tmp_path}, "--out takes a file, and .* is a folder"),
        ({"out": photo}, r"photo.png is there and is no .onnx file; choose another --out"),
        ({"opset": 900}, r"the opset \(--opset\) is a number from 7 to \d+, got 900"),
        ({"tolerance": -1.0}, "the tolerance is a number from 0 on, got -1"),
        ({"tolerance": float("nan")}, "the tolerance is a number from 0 on, got nan"),
    ):
        with pytest.raises(UserError, match=says):
            export(classifier, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [photo]
    assert photo.read_bytes() == b"a picture"


def test_what_differs_is_not_kept(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "differs from the network by .*more than the tolerance of 0, so it is not kept"
    with pytest.raises(UserError, match=says):
        export(classifier, "onnx", out=tmp_path / "a.onnx", tolerance=0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no format 'caffe'"):
        export(classifier, "caffe")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="are for --format onnx"):
        export(classifier, "torchscript", int8=True)
    # Without the data, images of one's own do.
    photo = classifier.parent / "photos/test/class0/0.jpg"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give images of your own with --images"):
        export(classifier, "torchscript", out=tmp_path / "a")
    record = export(
        classifier, "torchscript", out=tmp_path / "a", images=[str(photo)], latency=False
    )
    assert record["check"]["images"] == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime, which is not installed; pip install 'tutel"):
        export(classifier, out=tmp_path / "b.onnx")
