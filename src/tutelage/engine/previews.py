"""A few test images with the truth, and what teacher and student found in them, for the report.

    pictures/pictures.json    classes, and for each image: file, size, and what to draw for the
                              truth, the student, the teacher, and `further` predictions by name
    pictures/<n>.jpg          the image, at most 512 pixels wide and high
    pictures/<n>-<role>.png   the class of every pixel, 255 for none, if the task has masks

Boxes and points are in pixels of the stored image. The images are the same for every method and
seed. A task that draws no overlays (classification) leaves no pictures.

Trackers get the same images, with what was found drawn over them side by side.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutelage.core import IGNORE_INDEX, Batch, Distiller, Overlay
from tutelage.core.combined import free_name
from tutelage.core.modes import eval_mode
from tutelage.core.overlay import DrawsAgreement, DrawsFurther, DrawsOverlays
from tutelage.core.taps import call
from tutelage.core.task import HasClasses
from tutelage.drawing.maps import map_picture
from tutelage.drawing.overlay import draw_panels
from tutelage.engine.setup import TrainingSetup
from tutelage.io import temporary_folder, write_json

FOLDER = "pictures"
COUNT = 4
LONGEST_SIDE = 512
NO_CLASS = 255  # the byte of a pixel without a class
Pictures = dict[str, NDArray[np.uint8]]  # (H, W, 3) by name


def save_previews(ready: TrainingSetup, folder: Path) -> Pictures:
    """Write the folder of pictures, whole or not at all, and return pictures for trackers.

    A failure is a warning, since the student is trained by then.

    Args:
        ready: the run, with the weights to show in its student.
        folder: of the run.

    Returns:
        By name: `previews/<n>`, an image with the truth, the student's predictions and the
        teacher's side by side; `agreement/<map>`, the map of a method that draws some.
    """
    task = ready.distiller.task
    pictures: Pictures = {}
    if not isinstance(task, DrawsOverlays):
        return pictures
    final = folder / FOLDER
    temporary: Path | None = None
    try:
        temporary = temporary_folder(final)
        temporary.chmod(folder.stat().st_mode & 0o777)
        data = ready.setup.recipe.data
        classes = list(data.classes) if isinstance(data, HasClasses) else []
        images = _save_images(ready, task, temporary, classes, pictures)
        write_json(temporary / "pictures.json", {"classes": classes, "images": images})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except Exception as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        kind = type(error).__name__
        print(f"warning: no pictures for the report: {kind}: {error}", file=sys.stderr)
    return pictures


@torch.no_grad()
def _save_images(
    ready: TrainingSetup,
    task: DrawsOverlays,
    folder: Path,
    classes: Sequence[str],
    pictures: Pictures,
) -> list[dict[str, Any]]:
    """Write the images one at a time, since sizes may differ; return their records."""
    test = ready.setup.parts["test"]
    records = []
    with eval_mode(ready.distiller):
        for number, position in enumerate(evenly_spaced(len(test), COUNT)):
            batch = Batch.of(test.batch([(0, position)])).to(ready.loading.device)
            overlays, further = _overlays(ready, task, batch)
            record = {
                "index": int(batch.ids[0]),
                **_save_image(batch.inputs[0], overlays, further, folder / str(number)),
                "maps": _agreement_maps(ready, batch) if number == 0 else {},
            }
            records.append(record)
            drawn = {role: found for role, found in overlays.items() if found is not None}
            pictures[f"previews/{number}"] = draw_panels(
                _displayed(batch.inputs[0]), {**drawn, **further}, classes, LONGEST_SIDE
            )
            for name, values in record["maps"].items():
                pictures[f"agreement/{name}"] = map_picture(values)
    return records


def _displayed(image: Tensor) -> Tensor:
    """Return an image of any number of channels as (3, H, W) uint8."""
    channels = 3 if len(image) >= 3 else 1
    pixels = image[:channels].detach().float().cpu().clamp(0, 1).mul(255).round().byte()
    return pixels.expand(3, -1, -1)


def evenly_spaced(size: int, count: int) -> list[int]:
    """Return at most `count` positions, evenly spaced from the first one on.

    >>> evenly_spaced(9, 4), evenly_spaced(2, 4)
    ([0, 2, 4, 6], [0, 1])
    """
    count = min(size, count)
    return [size * i // count for i in range(count)]


def _overlays(
    ready: TrainingSetup, task: DrawsOverlays, batch: Batch
) -> tuple[dict[str, Overlay | None], dict[str, Overlay]]:
    """Return what to draw over the only image of a batch: by role, and further predictions."""
    inputs = ready.distiller.task.inputs(batch)
    output = call(ready.distiller.student, inputs)
    student = task.overlays(batch, output)
    overlays: dict[str, Overlay | None] = {
        "truth": task.overlays(batch)[0],
        "student": student[0],
        "teacher": None,
    }
    teacher = ready.setup.teacher
    if len(teacher.models()) == 1:
        overlays["teacher"] = task.overlays(batch, teacher(batch, inputs).output)[0]
    further: dict[str, Overlay] = {}
    if isinstance(task, DrawsFurther):
        drawn = task.further_overlays(batch, output)
        further = {name: found[0] for name, found in drawn.items()}
    return overlays, further


def _agreement_maps(ready: TrainingSetup, batch: Batch) -> dict[str, Any]:
    """Return the maps of the methods that draw some.

    They are computed with the live teacher: a cached one knows training samples only.
    """
    distiller = ready.distiller
    methods = [m for m in distiller.method.modules() if isinstance(m, DrawsAgreement)]
    if not methods:
        return {}
    live = Distiller(distiller.student, ready.setup.teacher, distiller.method, distiller.task)
    try:
        step = live.step(batch)
    finally:
        live.remove_taps()
    maps: dict[str, Tensor] = {}
    for method in methods:
        for name, values in method.agreement_maps(step).items():
            maps[free_name(name, maps)] = values
    return {name: _rounded(values, 4) for name, values in maps.items()}


def _save_image(
    image: Tensor,
    overlays: dict[str, Overlay | None],
    further: dict[str, Overlay],
    stem: Path,
) -> dict[str, Any]:
    """Write an image and its masks at the size of the report; return their record."""
    from PIL import Image

    scale = min(1.0, LONGEST_SIDE / max(image.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    channels = 3 if len(image) >= 3 else 1
    pixels = image.detach().float().cpu()[None, :channels]
    if scale < 1:
        pixels = F.interpolate(
            pixels, (height, width), mode="bilinear", antialias=True, align_corners=False
        )
    array = pixels[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    Image.fromarray(array).save(stem.with_suffix(".jpg"), quality=88)
    record: dict[str, Any] = {"file": f"{stem.name}.jpg", "width": width, "height": height}
    box_scale = (width / image.shape[-1], height / image.shape[-2])
    for role, overlay in overlays.items():
        record[role] = None if overlay is None else _drawn(overlay, box_scale)
        if overlay is not None and overlay.mask is not None:
            file = stem.with_name(f"{stem.name}-{role}.png")
            Image.fromarray(_mask_bytes(overlay.mask, (height, width)).numpy()).save(file)
            record[role]["mask"] = file.name
    if further:
        record["further"] = {name: _drawn(found, box_scale) for name, found in further.items()}
    return record


def _drawn(overlay: Overlay, scale: tuple[float, float]) -> dict[str, Any]:
    """Return boxes and points in pixels of the stored image."""
    if overlay.points is not None:
        points = overlay.points.cpu() * torch.tensor(scale)
        scores = torch.ones(len(points))
        if overlay.point_scores is not None:
            scores = overlay.point_scores.cpu()
        return {"points": _rounded(points, 2), "scores": _rounded(scores, 4)}
    if overlay.boxes is None or overlay.labels is None:
        return {}
    boxes = overlay.boxes.cpu() * torch.tensor([*scale, *scale])
    return {
        "boxes": _rounded(boxes, 2),
        "labels": overlay.labels.tolist(),
        "scores": None if overlay.scores is None else _rounded(overlay.scores, 4),
    }


def _mask_bytes(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask as bytes, resized by the nearest pixel."""
    if int(mask.max()) >= NO_CLASS:
        raise ValueError(
            f"a picture of a mask has at most {NO_CLASS} classes, got class {int(mask.max())}"
        )
    known = torch.where(mask == IGNORE_INDEX, NO_CLASS, mask).float()[None, None].cpu()
    return F.interpolate(known, size, mode="nearest-exact")[0, 0].byte()


def _rounded(values: Tensor, digits: int) -> Any:
    """Return numbers as nested lists, None for what is not finite."""
    if values.ndim > 1:
        return [_rounded(row, digits) for row in values]
    return [round(value, digits) if math.isfinite(value) else None for value in values.tolist()]


def mlflow_key(name: str) -> str:
    """Return a name of a picture with what MLflow takes in one, which is no bracket.

    >>> mlflow_key("agreement/backbone[p3]")
    'agreement/backbone_p3_'
    """
    return re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", name)


def picture_action(
    tracker: Any, name: str, picture: NDArray[np.uint8], step: int
) -> Callable[[], Any] | None:
    """Return what logs a picture (H, W, 3), or None for a tracker that is not known to take it."""
    if tracker.name == "tensorboard":
        return lambda: tracker.writer.add_image(name, picture, step, dataformats="HWC")
    if tracker.name == "wandb":
        return lambda: tracker.log_images({name: [picture]}, step=step)
    if tracker.name == "mlflow":
        import mlflow

        return lambda: mlflow.log_image(picture, key=mlflow_key(name), step=step)
    if tracker.name == "trackio":
        import trackio

        return lambda: tracker.log({name: trackio.Image(picture)}, step=step)
    return None
