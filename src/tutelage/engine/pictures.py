"""A few test images with what is true, and what teacher and student find in them, for the report.

    pictures/pictures.json   classes, and for each image: file, size, what to draw for truth, student and teacher
    pictures/<n>.jpg         the image, at most 512 pixels wide and high
    pictures/<n>-<who>.png   the class of every pixel, 255 for none, where the task has masks

Boxes are in pixels of the stored image. The images are the same for every method and seed. A task without sketches
(classification) leaves no pictures.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.cache import Remembered
from tutelage.core import Sketch
from tutelage.core.eval_mode import eval_mode
from tutelage.core.tap import call
from tutelage.engine.assemble import Assembly
from tutelage.engine.files import write_json

NAME, COUNT, LONGEST = "pictures", 4, 512
IGNORED, NOBODY = -100, 255


def keep_pictures(parts: Assembly, folder: Path, classes: Sequence[str]) -> None:
    """Write the folder of pictures, whole or not at all; one that fails is a warning, since the student is trained.

    Args:
        parts: the run, with the weights to show in its student, before it is shipped.
        folder: the run's.
        classes: names by label.
    """
    there, temporary = folder / NAME, folder / f"{NAME}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        images = _images(parts, temporary)
        if images:
            write_json(temporary / "pictures.json", {"classes": list(classes), "images": images})
            shutil.rmtree(there, ignore_errors=True)
            os.replace(temporary, there)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        print(f"warning: no pictures for the report: {type(error).__name__}: {error}", file=sys.stderr)


@torch.no_grad()
def _images(parts: Assembly, folder: Path) -> list[dict[str, Any]]:
    """Draw every image, one at a time, since sizes may differ."""
    test, records = parts.splits.test, []
    with eval_mode(parts.distiller):
        for number, position in enumerate(spread(len(test), COUNT)):
            batch = parts.move(test.__getitems__([position]))
            sketches = _sketches(parts, batch)
            if sketches is None:
                return []
            folder.mkdir(parents=True, exist_ok=True)
            record = {"index": int(test.index[position]), **_drawn(batch[0][0], sketches, folder / str(number))}
            records.append({**record, "maps": _maps(parts, batch) if number == 0 else {}})
    return records


def spread(size: int, count: int) -> list[int]:
    """Return at most `count` positions, evenly spaced from the first one on.

    >>> spread(9, 4), spread(2, 4)
    ([0, 2, 4, 6], [0, 1])
    """
    count = min(size, count)
    return [size * i // count for i in range(count)]


def _sketches(parts: Assembly, batch: Any) -> dict[str, Sketch | None] | None:
    """Return what to draw over the only image of a batch, None where the task draws nothing."""
    distiller, task = parts.distiller, parts.distiller.task
    truth, inputs = task.sketch(batch), task.inputs(batch)
    if truth is None:
        return None
    student = task.sketch(batch, call(distiller.student, inputs))
    teacher = None if parts.teacher is None else task.sketch(batch, parts.teacher(batch, inputs).out)
    drawn = {"truth": truth, "student": student, "teacher": teacher}
    return {who: None if found is None else found[0] for who, found in drawn.items()}


def _maps(parts: Assembly, batch: Any) -> dict[str, list[list[float | None]]]:
    """Return what the method shows of one image; a teacher that remembers looks itself, since it knows it not."""
    distiller, heard = parts.distiller, parts.distiller.teacher
    distiller.teacher = heard.network if isinstance(heard, Remembered) else heard
    try:
        found = distiller.method.inspect(distiller.step(batch))
    finally:
        distiller.teacher = heard
    return {name: _rounded(values, 4) for name, values in found.items()}


def _drawn(image: Tensor, sketches: dict[str, Sketch | None], stem: Path) -> dict[str, Any]:
    """Write an image and its masks, at the size of the report, and return what is to be read of them."""
    from PIL import Image

    scale = min(1.0, LONGEST / max(image.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
    pixels = image.detach().float().cpu()[None, : 3 if len(image) >= 3 else 1]
    if scale < 1:
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True, align_corners=False)
    array = pixels[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    Image.fromarray(array).save(stem.with_suffix(".jpg"), quality=88)
    record: dict[str, Any] = {"file": f"{stem.name}.jpg", "width": width, "height": height}
    for who, sketch in sketches.items():
        record[who] = None if sketch is None else _boxes(sketch, (width / image.shape[-1], height / image.shape[-2]))
        if sketch is not None and sketch.mask is not None:
            file = stem.with_name(f"{stem.name}-{who}.png")
            Image.fromarray(_pixels(sketch.mask, (height, width)).numpy()).save(file)
            record[who]["mask"] = file.name
    return record


def _boxes(sketch: Sketch, scale: tuple[float, float]) -> dict[str, Any]:
    if sketch.boxes is None or sketch.labels is None:
        return {}
    boxes = sketch.boxes.cpu() * torch.tensor([*scale, *scale])
    scores = None if sketch.scores is None else _rounded(sketch.scores, 4)
    return {"boxes": _rounded(boxes, 2), "labels": sketch.labels.tolist(), "scores": scores}


def _pixels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask as bytes, of another size by the nearest pixel."""
    if int(mask.max()) >= NOBODY:
        raise ValueError(f"a picture of a mask has at most {NOBODY} classes, got class {int(mask.max())}")
    known = torch.where(mask == IGNORED, NOBODY, mask).float()[None, None].cpu()
    return F.interpolate(known, size, mode="nearest-exact")[0, 0].byte()


def _rounded(values: Tensor, digits: int) -> Any:
    """Return numbers as nested lists, None for what is not finite."""
    if values.ndim > 1:
        return [_rounded(row, digits) for row in values]
    return [round(value, digits) if math.isfinite(value) else None for value in values.tolist()]
