"""From a student's feature to a teacher's width: a trainable connector, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.similarity.gram import promote


def connector(student: Tensor, teacher: Tensor, relu: bool | None = None) -> nn.Sequential:
    """Return an untrained map from the student's feature to the teacher's width: 1×1 convolution, batch norm, ReLU.

    For a vector (N, C) the convolution is a linear layer.

    >>> import torch
    >>> [type(part).__name__ for part in connector(torch.zeros(2, 4), torch.tensor([[1.0, -1.0]]))]
    ['Linear', 'BatchNorm1d']

    Args:
        student, teacher: features (N, C, H, W) or (N, C).
        relu: end in a ReLU; None does if no value of the teacher's feature is negative.
    """
    inputs, outputs = student.shape[1], teacher.shape[1]
    maps = student.ndim == 4
    first = nn.Conv2d(inputs, outputs, 1, bias=False) if maps else nn.Linear(inputs, outputs, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    parts = [first, nn.BatchNorm2d(outputs) if maps else nn.BatchNorm1d(outputs)]
    ends = bool((teacher >= 0).all()) if relu is None else relu
    return nn.Sequential(*parts, *([nn.ReLU()] if ends else [])).to(student.device, promote(student).dtype)


def pooled(feature: Tensor) -> Tensor:
    """Return the mean (N, C) over the positions of a map (N, C, H, W); a vector stays.

    >>> import torch
    >>> pooled(torch.ones(2, 3, 5, 4)).shape
    torch.Size([2, 3])
    """
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def check_layer(feature: Tensor, whose: str, name: str, images: Sequence[int] | None = None) -> None:
    """Refuse tokens, and maps that have the images' proportions only if their channels come last.

    >>> import torch
    >>> check_layer(torch.zeros(2, 64, 64, 32), "student", "stage3", images=(256, 128))
    >>> check_layer(torch.zeros(2, 2, 4, 512), "teacher", "norm", images=(64, 128))
    Traceback (most recent call last):
    tutelage.errors.UserError: the teacher's layer 'norm' gives (2, 2, 4, 512); tap a map (N, C, H, W) or a vector \
(N, C), in a network of tokens what its classifier gets

    Args:
        feature: of one layer.
        whose, name: of the layer, for the message.
        images: (..., H, W) of what the network got; None takes them for square.

    Raises:
        UserError: the feature is neither (N, C, H, W) nor (N, C).
    """
    shape = tuple(feature.shape)
    last = feature.ndim == 4 and _alike(shape[1:3], images) and not _alike(shape[2:], images)
    if feature.ndim not in (2, 4) or last:
        raise UserError(
            f"the {whose}'s layer {name!r} gives {shape}; tap a map (N, C, H, W) or a vector (N, C), in a network of "
            "tokens what its classifier gets"
        )


def _alike(size: Sequence[int], images: Sequence[int] | None) -> bool:
    """Return whether two sizes (H, W) have the same proportions, up to rounding."""
    if images is None:
        return size[0] == size[1]
    return 0.8 < size[0] * images[-1] / (size[1] * images[-2]) < 1.25
