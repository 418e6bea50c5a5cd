"""Panels of a page: copies of an image, each with boxes, a mask or a map over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.analysis.formatting import format_fixed
from tutelage.drawing.colors import text_color
from tutelage.drawing.masks import Mask, class_name
from tutelage.report.colors import background, level
from tutelage.report.maps import Numbers
from tutelage.report.masks import class_labels, enlarged, mask_agreement, mask_picture
from tutelage.report.matching import Boxes, Match, match
from tutelage.report.previews import Annotation, Preview

MAX_NAMED_BOXES = 12  # with more true boxes, a name appears only under the pointer
MAX_SCORED_BOXES = 8  # with more predicted boxes, so do the scores of false ones
FONT_SIZE = 0.036  # of the picture's longer side
MAX_NUMBERED_COLUMNS = 10  # a map with more columns has no numbers in its cells

Label = tuple[str, float, float]  # a text and its position


@dataclass(frozen=True)
class Shape:
    """A rectangle over a picture.

    Attributes:
        kind: what it stands for.
        position: x, y, width, height.
        tooltip: lines that appear under the pointer.
        tag: written in it; empty for nothing.
        shown_up_to: the highest score threshold at which it is shown; None for any.
        shown_above: it is shown at thresholds above this one only; None for any.
        fill: color of a cell.
        dark_text: whether the tag of a cell is black.
        radius: of its corners; half of a side makes a circle.
    """

    kind: Literal["true", "hit", "false", "missed", "cell"]
    position: tuple[float, float, float, float]
    tooltip: str
    tag: str = ""
    shown_up_to: float | None = None
    shown_above: float | None = None
    fill: str = "none"
    dark_text: bool = False
    radius: float = 0.0

    def is_shown(self, threshold: float) -> bool:
        """Return whether it is shown at a score threshold."""
        if self.shown_up_to is not None and self.shown_up_to < threshold:
            return False
        return self.shown_above is None or self.shown_above < threshold


@dataclass(frozen=True)
class Panel:
    """One copy of an image with something over it.

    Attributes:
        title: whose it is.
        caption: what to read of it; None where that is a count of boxes.
        shapes: boxes or cells.
        mask: a picture of a mask as a data URI; empty for none.
        labels: (text, x, y) of names of a mask's classes.
    """

    title: str
    caption: str | None = None
    shapes: Sequence[Shape] = ()
    mask: str = ""
    labels: Sequence[Label] = ()

    def caption_at(self, threshold: float | None) -> str:
        """Return the words beside the title at a score threshold."""
        if self.caption is not None:
            return self.caption
        kinds = [shape.kind for shape in self.shapes if shape.is_shown(threshold or 0.0)]
        hits = kinds.count("hit")
        total = hits + kinds.count("missed")
        text = f"{hits} of {total} found" if total else "nothing to find"
        return f"{text}, {kinds.count('false')} false"

    def is_crowded(self, threshold: float | None) -> bool:
        """Return whether the scores of so many boxes would hide the picture."""
        predicted = [shape for shape in self.shapes if shape.shown_up_to is not None]
        return sum(shape.is_shown(threshold or 0.0) for shape in predicted) > MAX_SCORED_BOXES


@dataclass(frozen=True)
class PictureRow:
    """An image and its panels, side by side; `key` is its id on the page."""

    key: str
    name: str
    source: str
    width: int
    height: int
    panels: Sequence[Panel] = ()

    @classmethod
    def of(cls, preview: Preview, panels: Sequence[Panel]) -> PictureRow:
        """Return an image with these panels."""
        return cls(
            key=f"photo{preview.index}",
            name=f"test image {preview.index}",
            source=preview.source,
            width=preview.width,
            height=preview.height,
            panels=panels,
        )

    @property
    def font_size(self) -> float:
        """Height of a name in the picture's pixels."""
        return round(FONT_SIZE * max(self.width, self.height), 2)

    def tag_position(self, shape: Shape) -> tuple[float, float]:
        """Return where a box's tag starts.

        It is above the box's left corner, or in the box at the upper edge of the image.
        """
        x, y, _, _ = shape.position
        last_x = self.width - 0.62 * self.font_size * len(shape.tag)
        baseline = y if y > 1.2 * self.font_size else y + 1.3 * self.font_size
        return round(max(min(x, last_x), 0.0), 2), round(baseline - 0.3 * self.font_size, 2)


def truth_panel(truth: Annotation, classes: Sequence[str]) -> Panel:
    """Return the panel of the targets."""
    if truth.mask is not None:
        return _mask_panel(truth.title, truth.mask, classes)
    boxes = truth.boxes or Boxes([], [])
    has_tags = _has_several(classes) and len(boxes.labels) <= MAX_NAMED_BOXES
    shapes = []
    for corners, label in zip(boxes.corners, boxes.labels, strict=True):
        name = class_name(classes, label)
        shapes.append(Shape("true", _position(corners), name, tag=name if has_tags else ""))
    caption = f"{len(shapes)} {'box' if len(shapes) == 1 else 'boxes'}"
    return Panel(truth.title, caption, _largest_first(shapes))


def prediction_panel(
    prediction: Annotation, truth: Annotation, classes: Sequence[str]
) -> tuple[Panel, tuple[Boxes, Match] | None]:
    """Return the panel of a prediction and, of boxes, how they match the true ones."""
    if prediction.mask is not None:
        return _mask_panel(prediction.title, prediction.mask, classes, truth.mask), None
    predicted = prediction.boxes or Boxes([], [])
    target = truth.boxes or Boxes([], [])
    result = match(target, predicted)
    shapes = []
    for corners, label, score in zip(target.corners, target.labels, result.scores, strict=True):
        tooltip = f"missed: {class_name(classes, label)}"
        shapes.append(Shape("missed", _position(corners), tooltip, shown_above=score))
    for corners, label, score, iou in zip(
        predicted.corners, predicted.labels, predicted.scores, result.ious, strict=True
    ):
        name = class_name(classes, label)
        score_text = format_fixed(score, 2)
        outcome = "false: it overlaps no free true box by half"
        if iou is not None:
            outcome = f"overlap {format_fixed(iou, 2)}"
        shapes.append(
            Shape(
                kind="false" if iou is None else "hit",
                position=_position(corners),
                tooltip=f"{name}, score {score_text}\n{outcome}",
                tag=f"{name} {score_text}" if _has_several(classes) else score_text,
                shown_up_to=score,
            )
        )
    return Panel(prediction.title, None, _largest_first(shapes)), (predicted, result)


def map_panel(title: str, values: Numbers, preview: Preview) -> Panel:
    """Return a map, patch by patch, over its image."""
    rows = len(values)
    columns = len(values[0])
    width = preview.width / columns
    height = preview.height / rows
    shapes = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            position = (
                round(j * width, 2),
                round(i * height, 2),
                round(width, 2),
                round(height, 2),
            )
            shapes.append(_cell(value, i, j, position, has_number=columns <= MAX_NUMBERED_COLUMNS))
    numbers = [value for row in values for value in row if value is not None]
    mean = sum(numbers) / len(numbers) if numbers else None
    return Panel(title, f"mean {format_fixed(mean, 2)}", shapes)


def _cell(
    value: float | None,
    row: int,
    column: int,
    position: tuple[float, float, float, float],
    has_number: bool,
) -> Shape:
    index = level(value)
    fill = "none" if index is None else background(index)
    tag = ""
    if has_number:
        # Adding 0.0 turns −0.00 into 0.00.
        tag = format_fixed(None if value is None else round(value, 2) + 0.0, 2)
    return Shape(
        kind="cell",
        position=position,
        tooltip=f"row {row + 1}, column {column + 1}\nagreement {format_fixed(value, 3)}",
        tag=tag,
        fill=fill,
        dark_text=index is None or text_color(fill) == "#000000",
    )


def _mask_panel(title: str, mask: Mask, classes: Sequence[str], truth: Mask | None = None) -> Panel:
    labels = class_labels(mask, classes)
    caption = ", ".join(f"{name} {100 * share:.0f} %" for name, _, _, share in labels) or "no class"
    agreement = None if truth is None else mask_agreement(truth, mask)
    if agreement is not None:
        mean_iou, accuracy = agreement
        caption = f"IoU {100 * mean_iou:.1f} %, pixels {100 * accuracy:.1f} %"
    picture = mask_picture(enlarged(mask), classes, None if truth is None else enlarged(truth))
    positions = [(name, x, y) for name, x, y, _ in labels]
    font_size = FONT_SIZE * max(mask.shape)
    return Panel(title, caption, mask=picture, labels=_without_overlap(positions, font_size))


def _without_overlap(labels: Sequence[Label], font_size: float) -> list[Label]:
    """Return the labels that do not run into an earlier one."""
    result: list[Label] = []
    for label in labels:
        if not any(_overlap(label, earlier, font_size) for earlier in result):
            result.append(label)
    return result


def _overlap(a: Label, b: Label, font_size: float) -> bool:
    same_line = abs(a[2] - b[2]) <= 1.3 * font_size
    return same_line and abs(a[1] - b[1]) <= 0.33 * font_size * len(a[0] + b[0])


def _has_several(classes: Sequence[str]) -> bool:
    """Return whether there is more than one class beside the background."""
    return len(classes) > 2


def _position(corners: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = corners
    return left, top, round(right - left, 2), round(bottom - top, 2)


def _largest_first(shapes: Sequence[Shape]) -> list[Shape]:
    """Sort shapes: what is drawn later lies above, where the pointer reaches it."""
    return sorted(shapes, key=lambda shape: -shape.position[2] * shape.position[3])
