"""Recipes for images with boxes or masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.recipes.starter.classification import BASELINE, HEAD, teacher_text
from tutelage.recipes.starter.found import Found
from tutelage.recipes.starter.masks import MAX_SMALL
from tutelage.recipes.starter.schedule import schedule
from tutelage.recipes.starter.yaml_text import comment, entry, section

DIST = """\
# DIST: class probabilities are correlated with the teacher's, pixel by pixel and class by class.
# Start with this: it was the best in both of our settings.
method: {class_path: tutelage.methods.DIST, init_args: {beta: 2.0, gamma: 2.0, temperature: 1.0}}
"""
MAX_SMALL_SIDE = 320  # shorter side of images that the small detectors are chosen for
PYRAMID = ["backbone[0]", "backbone[1]", "backbone[2]"]


def detection(found: Found) -> dict[str, str]:
    """Return the recipes for boxes: FCOS on ResNets."""
    assert found.sides is not None
    num_classes = len(found.classes) + 1
    is_small = found.sides[0] <= MAX_SMALL_SIDE
    teacher = _fcos("resnet50", num_classes, found.sides[0], is_small)
    student = _fcos("resnet18", num_classes, found.sides[0], is_small)
    task = {"num_classes": num_classes, "names": list(found.classes)}
    remarks = {
        "num_classes": "counts the background, which is class 0",
        "names": "of the classes without the background, for tables and pictures",
    }
    return _texts(
        found,
        section("task", "tutelage.tasks.Detection", task, remarks),
        networks=(teacher, student),
        layers=PYRAMID,
        train=schedule(found.counts["train"], batch_size=8, lr=1.0e-3, is_large=not is_small),
        note=(
            "sides is the length to which the shorter side of an image is brought. With ImageNet's "
            "weights for the backbone it learns much faster: weights: IMAGENET1K_V1 in the "
            "init_args of fpn_backbone, here and in teacher.yaml, which downloads them once. With "
            "timm installed the name may be any of its networks, such as mobilenetv3_small_050."
        ),
    )


def segmentation(found: Found) -> dict[str, str]:
    """Return the recipes for masks: U-Nets for small images, else DeepLabV3."""
    assert found.sides is not None
    num_classes = len(found.classes)
    is_small = found.sides[0] <= MAX_SMALL
    if is_small:
        teacher = _model(
            "tutelage.models.unet", {"num_classes": num_classes, "width": 12, "convs": 2}
        )
        student = _model(
            "tutelage.models.unet", {"num_classes": num_classes, "width": 4, "convs": 1}
        )
        layers = ["up1", "up2"]
        note = "width and convs say how large it is."
    else:
        shared = {"num_classes": num_classes, "aux_loss": True, "weights_backbone": None}
        place = "torchvision.models.segmentation"
        teacher = _model(f"{place}.deeplabv3_resnet101", shared)
        student = _model(f"{place}.deeplabv3_resnet50", shared)
        layers = ["classifier.3"]
        note = (
            "With weights_backbone: IMAGENET1K_V1, here and in teacher.yaml, it starts from "
            "ImageNet's weights, which are downloaded once, and learns much faster."
        )
    return _texts(
        found,
        section(
            "task",
            "tutelage.tasks.Segmentation",
            {"num_classes": num_classes, "names": list(found.classes)},
            {"num_classes": "counts the background, if it is a number in the masks"},
        ),
        first={"dist.yaml": DIST},
        networks=(teacher, student),
        layers=layers,
        train=schedule(
            found.counts["train"],
            batch_size=8,
            lr=3.0e-3 if is_small else 5.0e-4,
            is_large="size" not in found.arguments,
        ),
        note=note,
    )


def _texts(
    found: Found,
    task: str,
    *,
    networks: tuple[Mapping[str, Any], Mapping[str, Any]],
    layers: Sequence[str],
    train: str,
    note: str,
    first: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the recipes; whoever starts begins with the first."""
    teacher, student = networks
    own = (
        "A trained teacher of your own instead, which learned these classes in this order:\n"
        "teacher: {model: ..., weights: path/to/checkpoint.pth}  with the model of teacher.yaml"
    )
    pairs = ", ".join(f'"{layer}": "{layer}"' for layer in layers)
    ssim = _on_pairs("SSIM", "weight: 2.0", pairs)
    pcka = _on_pairs("PCKA", "intra_weight: 10.0, patch_size: auto", pairs)
    fitnet = _on_pairs("FitNet", "weight: 0.5", pairs)
    methods = {
        **(first or {}),
        "ssim.yaml": (
            "# SSIM: the student's feature maps get the local structure of the teacher's.\n"
            f"method: {ssim}\n"
        ),
        "pcka.yaml": (
            "# PCKA: patches of the feature maps are aligned with the teacher's by their kernels "
            f"(CKA).\nmethod: {pcka}\n"
        ),
        "fitnet.yaml": (
            "# FitNet: the student's feature maps are regressed on the teacher's.\n"
            f"method: {fitnet}\n"
        ),
        "pcka_fitnet.yaml": (
            "# Both together.\n"
            "method: {class_path: tutelage.CombinedMethod, init_args: {methods: [\n"
            f"  {pcka},\n  {fitnet}]}}}}\n"
        ),
    }
    start = next(iter(methods)).removesuffix(".yaml")
    setting = "\n".join(
        [
            comment(HEAD.format(start=start)),
            "",
            section("data", f"tutelage.data.{found.data}", found.arguments, found.remarks),
            "",
            task,
            "",
            "teacher: {recipe: teacher.yaml}  # trained once, into runs/teachers, then reused",
            comment(own),
            "",
            "student:",
            entry("model", student, depth=1),
            comment(note),
            "",
            train,
        ]
    )
    return {
        "_setting.yaml": setting,
        **methods,
        "baseline.yaml": BASELINE,
        "teacher.yaml": teacher_text(teacher, found.counts["train"]),
    }


def _on_pairs(method: str, arguments: str, pairs: str) -> str:
    """Return a method on pairs of layers, as YAML."""
    return (
        f"{{class_path: tutelage.methods.{method}, init_args: {{{arguments},\n"
        f"  layer_pairs: {{{pairs}}}}}}}"
    )


def _fcos(name: str, num_classes: int, side: int, is_small: bool) -> dict[str, Any]:
    backbone: dict[str, Any] = {"name": name}
    arguments: dict[str, Any] = {"num_classes": num_classes, "sides": [min(800, max(64, side))]}
    if is_small:
        backbone |= {"width": 64, "extra": None}
        arguments |= {"convs": 1 if name == "resnet18" else 2, "strides": [8, 16, 32]}
    return _model(
        "tutelage.models.fcos",
        {"backbone": _model("tutelage.models.fpn_backbone", backbone), **arguments},
    )


def _model(class_path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": dict(arguments)}
