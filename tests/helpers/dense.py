"""Short recipes for detection: colored shapes in COCO's format, tiny FCOS networks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tutelage import Method
from tutelage.data import Coco
from tutelage.data.sets._coco_file import CocoImage, write_instances
from tutelage.models import fcos, fpn_backbone
from tutelage.recipes import Recipe, StudentConfig, TeacherConfig, TrainConfig
from tutelage.tasks import Detection

CLASSES = ["background", "brick", "leaf"]
COLORS = torch.tensor([[200, 80, 40], [40, 160, 70]], dtype=torch.uint8)


def write_shapes(root: Path, counts: dict[str, int], size: tuple[int, int] = (96, 128)) -> Path:
    """Write noisy images with bricks (red) and leaves (green) in COCO's format.

    The last image of the test part is empty.
    """
    from PIL import Image

    generator = torch.Generator().manual_seed(1)
    for part, count in counts.items():
        (root / part).mkdir(parents=True)
        images = []
        for number in range(count):
            photo = torch.randint(90, 160, (3, *size), generator=generator, dtype=torch.uint8)
            is_empty = (part, number) == ("test", count - 1)
            boxes, labels = _shapes(photo, 0 if is_empty else 3, generator)
            path = root / part / f"{number}.png"
            Image.fromarray(photo.permute(1, 2, 0).numpy()).save(path)
            images.append(
                CocoImage(
                    path=path,
                    source=path,
                    width=size[1],
                    height=size[0],
                    boxes=boxes,
                    labels=labels,
                    area=(boxes[:, 2:] - boxes[:, :2]).prod(1),
                    crowd=torch.zeros(len(boxes), dtype=torch.bool),
                )
            )
        write_instances(root / "annotations" / f"instances_{part}.json", images, CLASSES)
    return root


def _shapes(photo: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    boxes, labels = torch.zeros(count, 4), torch.randint(1, 3, (count,), generator=generator)
    for i in range(count):
        width, height = (int(v) for v in torch.randint(20, 40, (2,), generator=generator))
        x = int(torch.randint(0, photo.shape[2] - width, (1,), generator=generator))
        y = int(torch.randint(0, photo.shape[1] - height, (1,), generator=generator))
        photo[:, y : y + height, x : x + width] = COLORS[labels[i] - 1][:, None, None]
        boxes[i] = torch.tensor([x, y, x + width, y + height])
    return boxes, labels


def detection_recipe(
    root: Path, method: Method, teacher: Path | None, width: int = 32, **train: object
) -> Recipe:
    """Return a short recipe on images that `write_shapes` made."""

    def network(channels: int) -> torch.nn.Module:
        backbone = fpn_backbone("resnet18", channels, extra=None)
        detector = fcos(backbone, len(CLASSES), sides=[96], convs=1, strides=[8, 16, 32])
        # So that it detects something after few steps.
        torch.nn.init.zeros_(detector.head.classification_head.cls_logits.bias)
        return detector

    torch.manual_seed(0)
    settings: dict[str, object] = {"epochs": 1, "batch_size": 4, "num_threads": 1, **train}
    teacher_config = None
    student = StudentConfig(network(width))
    if teacher is not None:
        teacher_config = TeacherConfig(network(64), weights=str(teacher), preflight=False)
    return Recipe(
        data=Coco(str(root), train="train", val="val", test="test"),
        task=Detection(num_classes=len(CLASSES), names=CLASSES[1:]),
        student=student,
        method=method,
        teacher=teacher_config,
        train=TrainConfig(optimizer=partial(torch.optim.AdamW, lr=2e-3), **settings),
    )
