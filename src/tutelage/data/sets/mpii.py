"""MPII Human Pose: persons in photographs with 16 joints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._files import check_image_files, require_folder
from tutelage.data._text import is_file, warn_counts
from tutelage.data.pose_augmentation import PoseAugmentation
from tutelage.data.pose_data import PoseData, PoseSplits, check_pose_size
from tutelage.data.pose_files import PoseFiles, cut_by_image, regions_around
from tutelage.data.poses import Joints
from tutelage.data.sets._mpii_files import Person, head_sizes, read_json_part, read_release
from tutelage.errors import UserError

NAMES = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("pelvis", "thorax", "upper_neck", "head_top"),
    *("right_wrist", "right_elbow", "right_shoulder"),
    *("left_shoulder", "left_elbow", "left_wrist"),
)
FLIP_PAIRS = tuple(
    (f"left_{part}", f"right_{part}")
    for part in ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
)
UPPER_NECK = NAMES.index("upper_neck")
HEAD_TOP = NAMES.index("head_top")
PERSON = 200.0  # pixels that a person of scale 1 is high
RELEASE = "mpii_human_pose_v1_u12_1.mat"
NO_POINTS = "persons without a labeled joint, which are left out"
ADVICE = (
    "lay it out as root/images/*.jpg beside root/annot/train.json, valid.json and gt_valid.mat, or "
    f"beside the release's {RELEASE}, and set data.root"
)


@dataclass(frozen=True)
class _Persons:
    """The persons of a part: of each its entry, and where they are from."""

    people: list[Person]
    source: Path


class Mpii(PoseData):
    """MPII in the layout of the usual code, or as it was released.

    `root/annot/train.json` and `valid.json` list persons with `joints`, `joints_vis`, `center`,
    `scale` and `image`, pixels counted from 1; `gt_valid.mat` has the head boxes of the latter,
    which are tested on. Without them `root/mpii_human_pose_v1_u12_1.mat` is read: of its training
    images the last tenth is tested on, so that figures are not those of the usual split.

    The batch's `reference` is the head's size, 0.6 times the diagonal of its box, so that `pck` at
    0.5 is PCKh. Where there is no box it is the distance of head top and upper neck, or a tenth of
    the person.

    Args:
        root: the folder.
        size: height and width of the inputs.
        validation: share of the training part's images that is held out for validation.
        augment: True mirrors half of the samples, turns 60 % of them with a deviation of 30
            degrees, and scales with one of 0.25, as in the official code of OKDHP.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    flip_pairs = FLIP_PAIRS

    def __init__(
        self,
        root: str,
        size: tuple[int, int] = (256, 256),
        validation: float = 0.05,
        augment: bool | nn.Module = True,
    ) -> None:
        check_pose_size(size)
        self.root = root
        self.size = size
        self.validation = validation
        self.augment = augment

    @property
    def joint_names(self) -> list[str]:
        """Names of the 16 joints."""
        return list(NAMES)

    def raw_splits(self) -> PoseSplits:
        """Return the parts."""
        root = require_folder(self.root, "MPII", ADVICE)
        annotations = root / "annot"
        if is_file(annotations / "train.json"):
            train = _Persons(read_json_part(annotations / "train.json"), annotations / "train.json")
            test = _Persons(read_json_part(annotations / "valid.json"), annotations / "valid.json")
            heads = head_sizes(annotations / "gt_valid.mat", len(test.people))
            return *self._trained(train), self._samples(test, heads)
        if not is_file(root / RELEASE):
            raise UserError(
                f"MPII is not at {root}: there is neither annot/train.json nor {RELEASE}; {ADVICE}"
            )
        people = read_release(root / RELEASE)
        images = list(dict.fromkeys(person.image for person in people))
        tested = set(images[-(len(images) // 10) :])
        train = _Persons([p for p in people if p.image not in tested], root / RELEASE)
        test = _Persons([p for p in people if p.image in tested], root / RELEASE)
        return *self._trained(train), self._samples(test)

    def standard_augmentation(self) -> nn.Module:
        """Mirror, turn and scale."""
        return PoseAugmentation(
            rotation=30, scale=0.25, mirror=0.5, rotation_share=0.6, distribution="normal"
        )

    def whole_region(self, width: int, height: int) -> Tensor:
        """Return the region around the whole image, in the proportions of the inputs."""
        center = torch.tensor([[width / 2, height / 2]])
        extent = torch.tensor([[float(width), float(height)]])
        return regions_around(center, extent, self.size, padding=1.0)[0]

    def _trained(self, persons: _Persons) -> tuple[PoseFiles, PoseFiles]:
        """Return the parts for training and validation."""
        return cut_by_image(self._samples(persons), self.validation)

    def _samples(self, persons: _Persons, heads: Tensor | None = None) -> PoseFiles:
        """Return persons as samples; those without a labeled joint are left out."""
        seen = [number for number, p in enumerate(persons.people) if bool(p.visible.any())]
        counts = Counter({NO_POINTS: len(persons.people) - len(seen)})
        warn_counts(persons.source, counts)
        if not seen:
            raise UserError(f"{persons.source} has no person with a labeled joint; {ADVICE}")
        people = [persons.people[number] for number in seen]
        points = torch.stack([person.points for person in people])
        visible = torch.stack([person.visible for person in people])
        centers = torch.stack([person.center for person in people])
        scales = torch.tensor([person.scale for person in people])
        # The centers lie high in a person; the usual code moves them down by 15 pixels at scale 1.
        centers = centers + torch.stack([torch.zeros_like(scales), 15 * scales], -1)
        extents = (PERSON * scales)[:, None].expand(-1, 2)
        own = _own_head_sizes(people, points, visible, scales)
        reference = own if heads is None else heads[torch.tensor(seen)]
        joints = Joints(
            points=torch.where(visible[..., None], points, torch.nan),
            weights=visible.float(),
            regions=regions_around(centers + 0.5, extents, self.size),
            extras={"reference": reference},
        )
        names = list(dict.fromkeys(person.image for person in people))
        index = {name: number for number, name in enumerate(names)}
        folder = require_folder(self.root, "MPII", ADVICE) / "images"
        paths = [folder / name for name in names]
        check_image_files(paths)
        images = torch.tensor([index[person.image] for person in people])
        ids = torch.arange(len(people))
        return PoseFiles(paths, [None] * len(paths), images, joints, self.size, self.pairs, ids)


def _own_head_sizes(
    people: Sequence[Person], points: Tensor, visible: Tensor, scales: Tensor
) -> Tensor:
    """Return the sizes of heads (N,): of their boxes, else of two joints, else of the person."""
    boxes = torch.tensor([person.head or float("nan") for person in people])
    joints = (points[:, HEAD_TOP] - points[:, UPPER_NECK]).norm(dim=-1)
    both = visible[:, HEAD_TOP] & visible[:, UPPER_NECK] & (joints > 0)
    fallback = torch.where(both, joints, 0.1 * PERSON * scales)
    return torch.where(boxes > 0, boxes, fallback)
