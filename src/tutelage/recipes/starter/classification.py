"""Recipes for images with classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.recipes.starter.found import Found, listed
from tutelage.recipes.starter.images import MAX_SMALL
from tutelage.recipes.starter.schedule import schedule
from tutelage.recipes.starter.yaml_text import comment, entry, section

HEAD = """\
What all recipes of this folder share; written by `tutelage init`, to be edited.
Every key can be set on the command line, too: --train.epochs 5 --seed 1
Start with {start}.yaml; `tutelage plan` shows what it would do, `tutelage study` compares all."""


def texts(found: Found) -> dict[str, str]:
    """Return the recipes for classification with one or any number of labels an image."""
    is_multi = found.task != "classification"
    is_small = found.arguments["size"] <= MAX_SMALL
    teacher, student, layers = _networks(len(found.classes), is_small)
    start = "rcka" if is_multi else "dist"
    setting = "\n".join(
        [
            comment(HEAD.format(start=start)),
            "",
            section("data", f"tutelage.data.{found.data}", found.arguments, found.remarks),
            "",
            _task(found, is_multi),
            "",
            "teacher: {recipe: teacher.yaml}  # trained once, into runs/teachers, then reused",
            comment(_own_teacher(len(found.classes), teacher)),
            "",
            "student:",
            entry("model", student, depth=1),
            "",
            schedule(
                found.counts["train"],
                batch_size=64,
                lr=1.0e-2 if is_small else 1.0e-3,
                is_large=not is_small,
            ),
        ]
    )
    methods = _multi_label(layers) if is_multi else _single_label(layers)
    return {
        "_setting.yaml": setting,
        **methods,
        "baseline.yaml": BASELINE,
        "teacher.yaml": teacher_text(teacher, found.counts["train"]),
    }


BASELINE = """\
# The student without a teacher: what a method has to beat.
method: {class_path: tutelage.methods.Baseline}
"""


def teacher_text(model: Mapping[str, Any], num_train: int) -> str:
    """Return the recipe of a teacher that is trained without a teacher itself."""
    lines = [
        "# The teacher: a larger network, trained on the same data. Everything else is as in",
        "# _setting.yaml; what is written here replaces it for the teacher alone.",
        "teacher: null",
        "student:",
        entry("model", model, depth=1),
        "method: {class_path: tutelage.methods.Baseline}",
    ]
    return "\n".join(lines) + "\n"


def _networks(num_classes: int, is_small: bool) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return teacher, student, and the pairs of layers that methods on features relate."""
    if is_small:
        shared = {"num_classes": num_classes, "channels": 3}
        return (
            _model("tutelage.models.small_cnn", {**shared, "width": 32, "convs": 2}),
            _model("tutelage.models.small_cnn", {**shared, "width": 10}),
            "{stage2: stage2, stage3: stage3}",
        )
    return (
        _model("torchvision.models.resnet50", {"num_classes": num_classes}),
        _model("torchvision.models.resnet18", {"num_classes": num_classes}),
        "{layer3: layer3, layer4: layer4}",
    )


def _model(class_path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": dict(arguments)}


def _task(found: Found, is_multi: bool) -> str:
    name = "MultiLabelClassification" if is_multi else "Classification"
    lines = [
        "task:",
        f"  class_path: tutelage.tasks.{name}",
        "  init_args:",
        entry("num_classes", len(found.classes), listed(found.classes), depth=2),
    ]
    if is_multi:
        remark = "pos_weight: [...]  one factor a class, above 1 for classes that few images have"
    else:
        remark = "class_weights: balanced  rare classes count as much as frequent ones in training"
    return "\n".join([*lines, comment(remark, depth=2)])


def _own_teacher(num_classes: int, teacher: Mapping[str, Any]) -> str:
    return (
        "A trained teacher of your own instead, which learned these classes in this order:\n"
        f"teacher: {{model: {{class_path: {teacher['class_path']}, init_args: "
        f"{{num_classes: {num_classes}}}}}, weights: path/to/checkpoint.pth}}\n"
        "Networks pretrained on ImageNet (pip install 'tutelage[timm]'), as student here or in\n"
        "teacher.yaml, help most where there are few images: model:\n"
        "{class_path: timm.create_model, init_args:\n"
        "{model_name: resnet50, pretrained: true}, dict_kwargs: "
        f"{{num_classes: {num_classes}}}}}\n"
        "A network of your own: model: {class_path: mynet.Net} for mynet.py in this folder."
    )


def _single_label(layers: str) -> dict[str, str]:
    return {
        "dist.yaml": (
            "# DIST: the student's class probabilities are correlated with the teacher's. Start "
            "with this:\n"
            "# of ten methods it was the best in most of our settings.\n"
            "method: {class_path: tutelage.methods.DIST, init_args: {beta: 2.0, gamma: 2.0, "
            "temperature: 4.0}}\n"
        ),
        "kd.yaml": (
            "# Hinton's knowledge distillation: the student learns the teacher's softened "
            "probabilities.\n"
            "method: {class_path: tutelage.methods.KD, init_args: {temperature: 2.0, weight: 0.9, "
            "task_weight: 0.1}}\n"
        ),
        "rcka.yaml": _rcka(layers, of_probabilities=True),
    }


def _multi_label(layers: str) -> dict[str, str]:
    first = layers.removeprefix("{").partition(",")[0].partition(":")[0]
    last = layers.removesuffix("}").rpartition(" ")[2]
    return {
        "rcka.yaml": _rcka(layers, of_probabilities=False),
        "fitnet.yaml": (
            "# FitNet: the student's features are regressed on the teacher's.\n"
            "method: {class_path: tutelage.methods.FitNet, init_args: {layer_pairs: "
            f"{{{last}: {last}}}}}}}\n"
        ),
        "afd.yaml": (
            "# AFD: attention finds out which layer of the teacher belongs to which of the "
            "student.\n"
            "method: {class_path: tutelage.methods.AFD, init_args: "
            f"{{student_layers: [{first}, {last}], teacher_layers: [{first}, {last}], "
            "weight: 12.5}}\n"
        ),
    }


def _rcka(layers: str, *, of_probabilities: bool) -> str:
    aligned, options = "logits", ""
    if of_probabilities:
        aligned = "probabilities"
        options = ",\n  center: true, soften: both, temperature: 1.0, feature_weight: 5.0"
    return (
        f"# RCKA: {aligned} and features are aligned by their kernels (CKA); the layers may be of "
        "other widths.\n"
        "# `tutelage plan` shows which layers agree.\n"
        f"method: {{class_path: tutelage.methods.RCKA, init_args: {{layer_pairs: {layers}"
        f"{options}}}}}\n"
    )
