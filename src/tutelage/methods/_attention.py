"""What AFD and RTK share: queries and keys of layers, the attended distance of maps, and checks.

Queries and keys are vectors `BN(Linear(GAP f)) ∈ R^d`. Compute them outside autocast, in float32
or better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.core import Output, Step
from tutelage.core._arguments import check_layer_names
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._attention_maps import (
    MapDistance,
    Size,
    attention_map,
    attention_vectors,
    map_distance,
    spatial_size,
)
from tutelage.methods._checks import check_layout
from tutelage.similarity._checks import check_list, check_tensors
from tutelage.similarity._products import matmul


class FullPrecisionLinear(nn.Linear):
    """A linear layer whose gradient is in full precision even if `backward` runs in autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        return matmul(x, self.weight.mT) + self.bias


class LinearBNList(nn.ModuleList):
    """One linear layer with batch norm per tapped layer, on globally averaged features.

    >>> LinearBNList([3, 5], 8)([torch.ones(2, 3, 4, 4), torch.ones(2, 5, 2, 2)]).shape
    torch.Size([2, 2, 8])

    Args:
        channels: channels of the tapped layers.
        dim: length of the vectors.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        layers = []
        for in_features in channels:
            linear = FullPrecisionLinear(in_features, dim)
            layers.append(nn.Sequential(linear, nn.BatchNorm1d(dim)))
        super().__init__(layers)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the vectors (N, layers, dim) of feature maps (N, C, H, W).

        In train mode they depend on the other items of the batch.

        Raises:
            UserError: If the batch has one item in train mode, over which batch norm cannot
                normalize.
        """
        if self.training and len(features[0]) < 2:
            raise UserError(
                "the batch has 1 item, but batch norm needs at least 2 per process; "
                "use larger batches"
            )
        vectors = []
        for layer, feature in zip(self, features, strict=True):
            vectors.append(layer(promote(feature).mean((2, 3))))
        return torch.stack(vectors, 1)


class UninitializedModule(nn.Module):
    """Stands in for a trained part until `setup` builds it; calling it raises."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Raise, because `setup` has not been called."""
        raise UserError(
            "the attention is not built yet; call distiller.setup(batch) before the first step"
        )


def layer_positions(num_layers: int, dim: int) -> nn.Parameter:
    """Return a trainable vector per layer, (num_layers, dim), initialized as Xavier normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(num_layers, dim)))


def attended_distances(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    attention: Tensor,
    *,
    distance: MapDistance,
) -> Tensor:
    """Return the distance of every teacher layer to the student's layers, weighted by attention.

    Args:
        student: feature maps (N, C, H, W) of the student's layers, of any widths and sizes.
        teacher: feature maps of the teacher's layers for the same batch.
        attention: weights (N, teacher layers, student layers) whose rows sum to 1.
        distance: see `map_distance`.

    Returns:
        The means over the batch (teacher layers,), at least float32.

    Raises:
        UserError: As `check_features`, or for an unknown distance.
    """
    check_features(student, teacher)
    check_pair_numbers("attention", attention, (len(student[0]), len(teacher), len(student)))
    with full_precision(attention.device):
        student_maps = [attention_map(feature) for feature in student]
        # Pooled student maps depend on the size only, so teacher layers of one size share them.
        student_vectors: dict[Size, Tensor] = {}
        distances = []
        for feature in teacher:
            size = spatial_size(feature)
            if size not in student_vectors:
                student_vectors[size] = attention_vectors(student_maps, size)
            teacher_vector = attention_vectors([attention_map(feature)])
            distances.append(map_distance(student_vectors[size], teacher_vector, distance=distance))
        weighted = torch.stack(distances, 1) * promote(attention)
        return weighted.sum(2).mean(0)


def layer_features(output: Output, layers: Sequence[str]) -> list[Tensor]:
    """Return the tapped features of these layers, in order."""
    return [output.feature(layer) for layer in layers]


def num_channels(features: Sequence[Tensor]) -> list[int]:
    """Return the number of channels of every feature map (N, C, H, W)."""
    return [feature.shape[1] for feature in features]


def check_settings(
    method: str, student_layers: Sequence[str], teacher_layers: Sequence[str], qk_dim: int
) -> None:
    """Check the options that AFD and RTK share.

    >>> check_settings("AFD", "stage1", ["stage1"], 128)
    Traceback (most recent call last):
    tutelage.errors.UserError: AFD needs student_layers and teacher_layers, such as \
['stage1', 'stage2'] for both

    Args:
        method: name of the method, for the message.
        student_layers: addresses of the student's layers.
        teacher_layers: addresses of the teacher's layers.
        qk_dim: length of queries and keys.

    Raises:
        UserError: If there are no layers, if they are one string instead of a list, or if
            `qk_dim` is not a positive integer.
    """
    for layers in (student_layers, teacher_layers):
        if isinstance(layers, str) or not layers:
            raise UserError(
                f"{method} needs student_layers and teacher_layers, "
                "such as ['stage1', 'stage2'] for both"
            )
        check_layer_names(f"the layers of {method}", layers)
    if not isinstance(qk_dim, int) or qk_dim < 1:
        raise UserError(
            f"qk_dim is the length of queries and keys, a whole number from 1 on; got {qk_dim!r}"
        )


def check_layers(
    example: Step, student_layers: Sequence[str], teacher_layers: Sequence[str]
) -> None:
    """Check tapped features in `setup`, with the names of their layers in the messages.

    Args:
        example: outputs for one real batch.
        student_layers: addresses of the student's layers.
        teacher_layers: addresses of the teacher's layers.

    Raises:
        UserError: As `check_features`, or if a layer seems to have its channels last.
    """
    student = layer_features(example.student, student_layers)
    teacher = layer_features(example.teacher, teacher_layers)
    names = [*student_layers, *teacher_layers]
    check_features(student, teacher, names)
    for name, feature in zip(names, [*student, *teacher], strict=True):
        check_layout(student[0], feature, f"{names[0]}, {name}")


def check_pair_numbers(name: str, weights: Tensor, shape: tuple[int, int, int]) -> None:
    """Raise unless there is one floating-point number per item and pair of layers.

    >>> check_pair_numbers("attention", torch.ones(5, 1, 1), (2, 1, 1))
    Traceback (most recent call last):
    tutelage.errors.UserError: attention has one number per item and pair of layers, (2, 1, 1), \
got (5, 1, 1) of torch.float32

    Args:
        name: of the argument.
        weights: what was given.
        shape: of the items and the layers of both sides.
    """
    check_tensors(name, weights)
    if weights.shape != shape or not weights.is_floating_point():
        raise UserError(
            f"{name} has one number per item and pair of layers, {shape}, got "
            f"{tuple(weights.shape)} of {weights.dtype}"
        )


def check_features(
    student: Sequence[Tensor], teacher: Sequence[Tensor], names: Sequence[str] = ()
) -> None:
    """Check that features are maps of one batch that attention can compare.

    Args:
        student: features of the student's layers.
        teacher: features of the teacher's layers.
        names: names of all layers for the messages, the student's first; default: their indices.

    Raises:
        UserError: If there is none on one side, if one is not a floating-point map (N, C, H, W),
            if they differ in the batch, or if a map of the teacher is 1×1.
    """
    check_list("attention", student)
    check_list("attention", teacher)
    check_tensors("attention", *student, *teacher)
    if not student or not teacher:
        raise UserError(
            f"attention needs layers of both networks, got {len(student)} of the student "
            f"and {len(teacher)} of the teacher"
        )
    if not names:
        student_names = [f"student[{index}]" for index in range(len(student))]
        teacher_names = [f"teacher[{index}]" for index in range(len(teacher))]
        names = student_names + teacher_names
    for name, feature in zip(names, [*student, *teacher], strict=True):
        if feature.ndim != 4 or not feature.is_floating_point() or not feature.numel():
            raise UserError(
                f"the layer {name!r} gives {tuple(feature.shape)} of {feature.dtype}; "
                "tap feature maps (N, C, H, W)"
            )
        if len(feature) != len(student[0]):
            raise UserError(
                f"the layer {name!r} gives {len(feature)} items and {names[0]!r} "
                f"{len(student[0])}; give teacher and student the same batch"
            )
    # A unit vector of one element is always 1: such a layer has no loss and no gradient.
    for name, feature in zip(names[len(student) :], teacher, strict=True):
        if spatial_size(feature) == (1, 1):
            raise UserError(
                f"the teacher's layer {name!r} gives a 1×1 map, which has no spatial attention; "
                "leave it out"
            )
