"""What a tracker has at the end of a run, read back from its own files."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.masks import write_voc_masks
from tests.helpers.runs import make_recipe
from tutelage import KD, PCKA, Baseline, UserError, models
from tutelage.data import VOCSegmentation
from tutelage.drawing.maps import map_picture
from tutelage.drawing.overlay import TITLE_HEIGHT
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig, fit
from tutelage.engine.run_folder import RunFolder
from tutelage.tasks import Segmentation

TEXT = "seed: 0\ntrain:\n  epochs: 3\n"


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    # All pictures are kept, not the last four.
    read = accumulator.EventAccumulator(str(folder / "tutelage"), {"images": 0, "tensors": 0})
    return read.Reload()


def test_tensorboard_has_the_figures_the_recipe_and_the_maps(
    teacher_run: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(KD(), teacher_run, epochs=3, cka_every=1, log_with=("tensorboard",))
    metrics = fit(recipe, tmp_path / "run", text=TEXT)
    assert metrics is not None
    records = RunFolder(tmp_path / "run").records()
    read = events(tmp_path / "run")
    tags = read.Tags()
    for name in ("task", "kd"):
        logged = read.Scalars(name)
        assert [event.step for event in logged] == [record["step"] for record in records]
        expected = [record["terms"][name] for record in records]
        assert [event.value for event in logged] == pytest.approx(expected, rel=1e-6)
    logged = read.Scalars("validation/top1")
    expected = [record["validation"]["top1"] for record in records]
    assert [event.value for event in logged] == pytest.approx(expected, rel=1e-6)
    (test,) = read.Scalars("test/top1")
    assert test.value == pytest.approx(metrics["test"]["top1"], rel=1e-6)
    assert [event.step for event in read.Images("layers/cka")] == [
        0,
        *(record["step"] for record in records),
    ]
    maps = RunFolder(tmp_path / "run").records("layer_maps.jsonl")
    image = read.Images("layers/cka")[-1]
    size = (len(maps[-1]["rows"]) * 12, len(maps[-1]["columns"]) * 12)
    assert (image.height, image.width) == size
    assert "recipe/text_summary" in tags["tensors"]
    text = read.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    epochs: 3" in text.replace("      ", "    ")
    assert "_hparams_/session_start_info" in read.summary_metadata


def test_tensorboard_has_images_with_what_was_found(tmp_path: Path) -> None:
    voc = write_voc_masks(tmp_path / "voc", {"train": 4, "val": 2})
    unet = partial(models.unet, num_classes=3, width=4, convs=1)
    recipe = Recipe(
        data=VOCSegmentation(
            str(voc), names=["background", "red", "green"], validation=0.25, augment=False
        ),
        task=Segmentation(num_classes=3),
        student=StudentConfig(unet()),
        method=PCKA({"down1": "down1"}, patch_size=4),
        teacher=TeacherConfig(unet(), preflight=False),
        train=TrainConfig(epochs=1, batch_size=2, num_threads=1, log_with=("tensorboard",)),
        num_labels=None,
    )
    assert fit(recipe, tmp_path / "run") is not None
    read = events(tmp_path / "run")
    assert sorted(read.Tags()["images"]) == ["agreement/down1", "previews/0", "previews/1"]
    (event,) = read.Images("previews/0")
    assert event.step == RunFolder(tmp_path / "run").records()[-1]["step"]
    with Image.open(tmp_path / "run/pictures/0.jpg") as image:
        width, height = image.size
    assert (event.width, event.height) == (3 * width, height + TITLE_HEIGHT)
    sheet = np.array(Image.open(io.BytesIO(event.encoded_image_string)))
    panels = [sheet[TITLE_HEIGHT:, n * width : (n + 1) * width] for n in range(3)]
    assert not np.array_equal(panels[0], panels[1])  # the truth, and what an epoch learned of it
    assert (sheet[:TITLE_HEIGHT, :width] > 200).any()  # a title


def test_a_tracker_that_fails_does_not_end_the_run(
    teacher_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracking = pytest.importorskip("accelerate.tracking")

    def fail(*arguments: Any, **named: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(tracking.TensorBoardTracker, "log", fail)
    recipe = make_recipe(Baseline(), None, epochs=2, log_with=("tensorboard",))
    assert fit(recipe, tmp_path / "run") is not None
    said = capsys.readouterr().err
    assert said.count("warning: tensorboard fails and is left out from now on") == 1
    assert "ConnectionError: the server is gone" in said


def test_a_tracker_that_cannot_begin_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("accelerate.tracking")

    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(tracking.TensorBoardTracker, "start", fail)
    recipe = make_recipe(Baseline(), None, log_with=("tensorboard",))
    with pytest.raises(UserError, match=r"cannot begin .*api_key not configured.*log in"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_map_is_dark_without_agreement_light_with_it_and_gray_without_a_value() -> None:
    picture = map_picture([[0.0, 1.0, None], [0.5, -0.1, 1.2]])
    assert picture.shape == (24, 36, 3)
    assert picture.dtype == np.uint8
    cells = picture[::12, ::12].tolist()
    assert cells[0] == [[68, 1, 84], [253, 231, 37], [160, 160, 160]]
    assert cells[1] == [[33, 145, 140], [68, 1, 84], [253, 231, 37]]


def test_mlflow_has_the_figures_and_the_maps(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(KD(), teacher_run, epochs=2, cka_every=1, log_with=("mlflow",))
    metrics = fit(recipe, tmp_path / "run", text=TEXT)
    assert metrics is not None
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'tutelage'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["train.epochs"] == "3"
    assert run.data.metrics["test/top1"] == pytest.approx(metrics["test"]["top1"])
    history = client.get_metric_history(run.info.run_id, "validation/top1")
    assert len(history) == 2
    assert client.list_artifacts(run.info.run_id, "images")
