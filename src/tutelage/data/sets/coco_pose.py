"""Persons with keypoints in COCO's format: a `person_keypoints` file for each folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data._files import check_image_files, require_folder
from tutelage.data._text import existing, path_inside, warn_counts
from tutelage.data.pose_augmentation import PoseAugmentation
from tutelage.data.pose_data import PoseData, PoseSplits, check_pose_size
from tutelage.data.pose_files import PoseFiles, cut_by_image, regions_around
from tutelage.data.poses import Joints
from tutelage.data.sets._coco_fields import (
    check_annotation,
    integer,
    read_area,
    read_content,
    read_crowd,
    read_side,
)
from tutelage.errors import UserError

SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = ("nose", *(f"{side}_{part}" for part in SIDES for side in ("left", "right")))
FLIP_PAIRS = tuple((f"left_{part}", f"right_{part}") for part in SIDES)
ADVICE = (
    "lay it out as root/annotations/person_keypoints_<part>.json and root/<part>/*.jpg, and set "
    "data.root"
)
NO_POINTS = "persons without a labeled point, which are left out"
CROWD = "regions of many persons, which are left out"
OUTSIDE = "points beside their image, which have no label"
NO_BOX = "persons whose box has no extent, which are left out"


class CocoPose(PoseData):
    """Persons with keypoints in COCO's format.

    `root/annotations/person_keypoints_<part>.json` lies beside `root/<part>/`. Each person is cut
    out by its true box, widened to the proportions of the input and by a quarter. Persons without a
    labeled point and crowds are left out, which is counted in one warning; anything else that is
    wrong is an error that names file, annotation and field.

    Args:
        root: the folder.
        size: height and width of the inputs.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; the default is COCO's val2017, which results are reported on.
        validation: share of the training part's images that is held out for validation.
        flip_pairs: names of the joints that change places in a mirror; the default is COCO's.
        augment: True mirrors half of the samples, turns 60 % of them with a deviation of 40
            degrees, and scales with one of 0.3, as in the official code of OKDHP.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        size: tuple[int, int] = (256, 192),
        train: str = "train2017",
        val: str | None = None,
        test: str = "val2017",
        validation: float = 0.05,
        flip_pairs: Sequence[tuple[str, str]] = FLIP_PAIRS,
        augment: bool | nn.Module = True,
    ) -> None:
        check_pose_size(size)
        self.root = root
        self.size = size
        self.train = train
        self.val = val
        self.test = test
        self.validation = validation
        self.flip_pairs = flip_pairs
        self.augment = augment

    @property
    def joint_names(self) -> list[str]:
        """Names of the joints, from the file of the training part."""
        path = self._file(self.train)
        return _joint_names(read_content(path), path)

    def raw_splits(self) -> PoseSplits:
        """Return the parts."""
        train = self._part(self.train)
        if self.val is None:
            train, validation = cut_by_image(train, self.validation)
        else:
            validation = self._part(self.val)
        return train, validation, self._part(self.test)

    def standard_augmentation(self) -> nn.Module:
        """Mirror, turn and scale."""
        return PoseAugmentation(
            rotation=40, scale=0.3, mirror=0.5, rotation_share=0.6, distribution="normal"
        )

    def whole_region(self, width: int, height: int) -> Tensor:
        """Return the region around the whole image, in the proportions of the inputs."""
        center = torch.tensor([[width / 2, height / 2]])
        extent = torch.tensor([[float(width), float(height)]])
        return regions_around(center, extent, self.size, padding=1.0)[0]

    def _file(self, part: str) -> Path:
        root = require_folder(self.root, "COCO", ADVICE)
        return root / "annotations" / f"person_keypoints_{part}.json"

    def _part(self, part: str) -> PoseFiles:
        path = self._file(part)
        content = read_content(path)
        names = _joint_names(content, path)
        if part != self.train and names != self.joint_names:
            raise UserError(
                f"{path} has the keypoints {names}, but those of the training part are "
                f"{self.joint_names}; give parts of one data set"
            )
        counts: Counter[str] = Counter()
        persons = _Persons(content, path, path.parents[1] / part, len(names), counts)
        if not persons.rows:
            raise UserError(f"{path} has no person with a labeled point; {ADVICE}")
        check_image_files(persons.paths)
        warn_counts(path, counts)
        return persons.samples(self.size, self.pairs)


class _Persons:
    """The persons of a file that have a labeled point.

    Args:
        content: of the file.
        path: of the file.
        folder: of the images.
        num_joints: K.
        counts: what is left out, counted here.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        path: Path,
        folder: Path,
        num_joints: int,
        counts: Counter[str],
    ) -> None:
        self.path = path
        self.num_joints = num_joints
        self.counts = counts
        self.rows: list[Mapping[str, Any]] = []
        self.points: list[Tensor] = []
        self.boxes: list[list[float]] = []
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int] | None] = []
        self._index: dict[int, int] = {}
        images = {}
        for entry in content["images"]:
            images[integer(entry, "id", path, "an image")] = entry
        labels = {integer(entry, "id", path, "a category"): 1 for entry in content["categories"]}
        for annotation in content["annotations"]:
            check_annotation(annotation, images, labels, path)
            if read_crowd(annotation, path):
                counts[CROWD] += 1
                continue
            self._add(annotation, images[annotation["image_id"]], folder)

    def samples(self, size: tuple[int, int], pairs: Tensor) -> PoseFiles:
        """Return the persons as samples."""
        points = torch.stack(self.points)
        boxes = torch.tensor(self.boxes)
        weights = (points[..., 2] > 0).float()
        areas = [read_area(row, self.path) or row["bbox"][2] * row["bbox"][3] for row in self.rows]
        image_ids = torch.tensor([row["image_id"] for row in self.rows])
        joints = Joints(
            points=torch.where(weights[..., None] > 0, points[..., :2], torch.nan),
            weights=weights,
            regions=regions_around(boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:], size),
            extras={
                "area": torch.tensor(areas, dtype=torch.float32),
                "image_id": image_ids,
                "image_points": points,
            },
        )
        images = torch.tensor([self._index[row["image_id"]] for row in self.rows])
        return PoseFiles(
            self.paths, self.sizes, images, joints, size, pairs, torch.arange(len(self.rows))
        )

    def _add(self, annotation: Mapping[str, Any], image: Mapping[str, Any], folder: Path) -> None:
        points = self._points(annotation)
        size = tuple(read_side(image, name, self.path) for name in ("width", "height"))
        outside = (points[:, :2] < 0).any(1) | (points[:, :2] > torch.tensor(size)).any(1)
        self.counts[OUTSIDE] += int((outside & (points[:, 2] > 0)).sum())
        points[outside] = 0.0
        if not bool((points[:, 2] > 0).any()):
            self.counts[NO_POINTS] += 1
            return
        box = annotation["bbox"]
        if min(box[2:]) <= 0:
            self.counts[NO_BOX] += 1
            return
        image_id = annotation["image_id"]
        if image_id not in self._index:
            self._index[image_id] = len(self.paths)
            what = f"{self.path}: image {image_id}"
            name = image.get("file_name")
            if not isinstance(name, str):
                raise UserError(f"{what} has no 'file_name'; name its file in {folder}")
            self.paths.append(existing(path_inside(folder, name, what)))
            self.sizes.append((size[0], size[1]))
        self.rows.append(annotation)
        self.points.append(points)
        self.boxes.append([float(side) for side in box])

    def _points(self, annotation: Mapping[str, Any]) -> Tensor:
        """Return the points (K, 3): x, y, and 0 for none, 1 for hidden, 2 for visible."""
        values = annotation.get("keypoints")
        where = f"{self.path}: annotation {annotation['id']}"
        try:
            points = torch.tensor(values, dtype=torch.float32).view(self.num_joints, 3)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"{where} has the 'keypoints' {str(values)[:60]}, but its category has "
                f"{self.num_joints}; write x, y and visibility of each"
            ) from None
        if not bool(points.isfinite().all()) or not bool(
            torch.isin(points[:, 2], torch.tensor([0.0, 1.0, 2.0])).all()
        ):
            raise UserError(
                f"{where} has 'keypoints' that are not finite, or a visibility other than 0, 1 "
                "and 2; correct them"
            )
        return points


def _joint_names(content: Mapping[str, Any], path: Path) -> list[str]:
    """Return the names of the joints of the only category that has some."""
    named = [entry for entry in content["categories"] if entry.get("keypoints")]
    if len(named) != 1:
        raise UserError(
            f"{path} has {len(named)} categories with 'keypoints'; give a file of one such category"
        )
    names = named[0]["keypoints"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise UserError(f"{path}: 'keypoints' of the category are different names, got {names}")
    return list(names)
