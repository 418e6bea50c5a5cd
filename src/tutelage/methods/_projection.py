"""Trainable maps from a student's feature to the teacher's width, and checks of both features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_layout


def projection(student: Tensor, teacher: Tensor, pair: str) -> nn.Module:
    """Return a 1×1 convolution or linear layer to the teacher's width; the identity if they agree.

    >>> import torch
    >>> projection(torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 8, 8), "a → b")
    Conv2d(4, 6, kernel_size=(1, 1), stride=(1, 1), bias=False)

    Args:
        student: feature (N, C, H, W), (N, L, C) or (N, C).
        teacher: feature of the same rank.
        pair: the pair of layers, for messages.

    Raises:
        UserError: If the ranks differ or are none of 2, 3 and 4, if there are different numbers of
            tokens, or if a map has its channels last.
    """
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4):
        raise UserError(
            f"the pair {pair} gives features {tuple(student.shape)} and {tuple(teacher.shape)}; "
            "tap maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), of the same kind on both "
            "sides"
        )
    if student.ndim == 3 and student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"the pair {pair} has {student.shape[1]} and {teacher.shape[1]} tokens; "
            "tap layers of equal grids"
        )
    check_layout(student, teacher, pair)
    channel_dim = 1 if student.ndim == 4 else -1
    student_width = student.shape[channel_dim]
    teacher_width = teacher.shape[channel_dim]
    if student_width == teacher_width:
        return nn.Identity()
    if student.ndim == 4:
        return nn.Conv2d(student_width, teacher_width, 1, bias=False)
    return nn.Linear(student_width, teacher_width, bias=False)


def connector(student: Tensor, teacher: Tensor, relu: bool | None = None) -> nn.Sequential:
    """Return an untrained 1×1 convolution to the teacher's width, batch norm, and perhaps a ReLU.

    For a vector (N, C) the convolution is a linear layer.

    >>> import torch
    >>> [type(part).__name__ for part in connector(torch.zeros(2, 4), torch.tensor([[1.0, -1.0]]))]
    ['Linear', 'BatchNorm1d']

    Args:
        student: feature (N, C, H, W) or (N, C).
        teacher: feature (N, C, H, W) or (N, C).
        relu: end in a ReLU; None adds one if no value of the teacher's feature is negative.
    """
    student_width = student.shape[1]
    teacher_width = teacher.shape[1]
    layer: nn.Conv2d | nn.Linear
    norm: nn.Module
    if student.ndim == 4:
        layer = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        norm = nn.BatchNorm2d(teacher_width)
    else:
        layer = nn.Linear(student_width, teacher_width, bias=False)
        norm = nn.BatchNorm1d(teacher_width)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    parts: list[nn.Module] = [layer, norm]
    if relu is None:
        # A student that could go below zero would have to unlearn what the teacher cannot show.
        relu = bool((teacher >= 0).all())
    if relu:
        parts.append(nn.ReLU())
    return nn.Sequential(*parts).to(student.device, promote(student).dtype)


def adapter(
    student: Tensor, teacher: Tensor, when: Literal["auto", "always", "never"]
) -> nn.Module:
    """Return a 1×1 convolution with bias to the teacher's width, or the identity.

    It starts as the identity where the widths are equal, else at Kaiming's scale.

    >>> import torch
    >>> adapter(torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 8, 8), "auto")
    Conv2d(4, 6, kernel_size=(1, 1), stride=(1, 1))

    Args:
        student: map (N, C, H, W).
        teacher: map (N, C, H, W).
        when: `"auto"` (if the widths differ), `"always"` or `"never"`.

    Raises:
        UserError: If a map has its channels last.
    """
    check_layout(student, teacher, "of SSIM")
    student_width = student.shape[1]
    teacher_width = teacher.shape[1]
    same_width = student_width == teacher_width
    if student.ndim != 4 or when == "never" or (when == "auto" and same_width):
        return nn.Identity()
    layer = nn.Conv2d(student_width, teacher_width, 1, device=student.device)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if same_width:
        nn.init.dirac_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return layer


def pooled(feature: Tensor) -> Tensor:
    """Return the mean (N, C) over the positions of a map (N, C, H, W); a vector stays.

    >>> import torch
    >>> pooled(torch.ones(2, 3, 5, 4)).shape
    torch.Size([2, 3])
    """
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def check_layer(
    feature: Tensor, role: str, name: str, image_shape: Sequence[int] | None = None
) -> None:
    """Raise for tokens, and for maps that have the images' proportions only with channels last.

    >>> import torch
    >>> check_layer(torch.zeros(2, 64, 64, 32), "student", "stage3", image_shape=(256, 128))
    >>> check_layer(torch.zeros(2, 2, 4, 512), "teacher", "norm", image_shape=(64, 128))
    Traceback (most recent call last):
    tutelage.errors.UserError: the teacher's layer 'norm' gives (2, 2, 4, 512); tap a map \
(N, C, H, W) or a vector (N, C), in a network of tokens what its classifier gets

    Args:
        feature: output of one layer.
        role: of its network, `student` or `teacher`, for the message.
        name: of the layer, for the message.
        image_shape: (..., H, W) of the network's input; None takes it for square.

    Raises:
        UserError: If the feature is neither (N, C, H, W) nor (N, C).
    """
    shape = tuple(feature.shape)
    channels_last = (
        feature.ndim == 4
        and _same_proportions(shape[1:3], image_shape)
        and not _same_proportions(shape[2:], image_shape)
    )
    if feature.ndim not in (2, 4) or channels_last:
        raise UserError(
            f"the {role}'s layer {name!r} gives {shape}; tap a map (N, C, H, W) or a vector "
            "(N, C), in a network of tokens what its classifier gets"
        )


def _same_proportions(size: Sequence[int], image_shape: Sequence[int] | None) -> bool:
    """Return whether a map (H, W) has the proportions of the images, up to rounding."""
    if image_shape is None:
        return size[0] == size[1]
    return 0.8 < size[0] * image_shape[-1] / (size[1] * image_shape[-2]) < 1.25
