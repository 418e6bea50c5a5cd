"""What AFD and RTK share: a vector to compare by for every layer, `BN(Linear(GAP f)) ∈ R^d`, and the looks at maps.

All of it in float32 or better, outside autocast, as `energies.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.core import Step
from tutelage.errors import UserError
from tutelage.methods.energies import size_of
from tutelage.methods.parts import check_finite, check_layout
from tutelage.similarity.gram import promote


class Vectors(nn.ModuleList):
    """One Linear with batch norm per layer: maps (N, C, H, W) → vectors (N, layers, d).

    >>> Vectors([3, 5], 8)([torch.ones(2, 3, 4, 4), torch.ones(2, 5, 2, 2)]).shape
    torch.Size([2, 2, 8])

    A batch of one in train mode is a UserError: batch norm has nothing to normalise over.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(c, width), nn.BatchNorm1d(width)) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the vectors; in train mode they depend on the other items of the batch."""
        if self.training and len(maps[0]) < 2:
            raise UserError("the batch has 1 item, but batch norm needs at least 2 per process; use larger batches")
        return torch.stack([layer(promote(f).mean((2, 3))) for layer, f in zip(self, maps, strict=True)], 1)


class Unbuilt(nn.Module):
    """Stands where `setup` puts a trained part, and says so when it is called before."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Refuse."""
        raise UserError("the attention is not built yet; call distiller.setup(batch) before the first step")


def positions(layers: int, width: int) -> nn.Parameter:
    """Return a trainable vector per layer, (layers, width), Xavier normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(layers, width)))


def attention_use(attention: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of an attention in nats, and how much every column is used; both detached.

    An entropy near 0 says that one column takes all, the use which one: a sign of collapse.

    >>> entropy, use = attention_use(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]))
    >>> round(entropy.item(), 4), use.tolist()
    (0.3466, [0.75, 0.25])

    Args:
        attention: (N, rows, columns) whose rows sum to 1.
    """
    a = attention.detach()
    return torch.special.entr(a).sum(-1).mean(), a.mean((0, 1))


def check_settings(method: str, student_taps: object, teacher_taps: object, width: object) -> None:
    """Refuse taps that are no lists of names, and a width that is no number of features.

    >>> check_settings("AFD", "stage1", ["stage1"], 128)
    Traceback (most recent call last):
    tutelage.errors.UserError: AFD needs student_taps and teacher_taps, such as ['stage1', 'stage2'] for both
    """
    if any(isinstance(taps, str) or not taps for taps in (student_taps, teacher_taps)):
        raise UserError(f"{method} needs student_taps and teacher_taps, such as ['stage1', 'stage2'] for both")
    if not isinstance(width, int) or width < 1:
        raise UserError(f"width is the length of queries and keys, a whole number from 1 on; got {width!r}")


def maps_of(step: Step, student_taps: Sequence[str], teacher_taps: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Return both networks' tapped maps."""
    return [step.student.tap(name) for name in student_taps], [step.teacher.tap(name) for name in teacher_taps]


def checked_maps(
    example: Step, student_taps: Sequence[str], teacher_taps: Sequence[str]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return both networks' tapped maps, checked under their taps' names; for `setup`: `check_finite` is done too."""
    check_finite(example)
    student, teacher = maps_of(example, student_taps, teacher_taps)
    names = (*student_taps, *teacher_taps)
    check_maps(student, teacher, names)
    for name, x in zip(names, (*student, *teacher), strict=True):
        check_layout(student[0], x, f"{names[0]}, {name}")
    return student, teacher


def check_maps(student: Sequence[Tensor], teacher: Sequence[Tensor], names: Sequence[str] = ()) -> None:
    """Refuse maps that cannot be compared; `names` are those of all layers, the student's first."""
    if not student or not teacher:
        raise UserError(f"attention needs layers of both, got {len(student)} of the student, {len(teacher)} teacher's")
    called = names or [*(f"student[{i}]" for i in range(len(student))), *(f"teacher[{i}]" for i in range(len(teacher)))]
    for name, x in zip(called, (*student, *teacher), strict=True):
        if x.ndim != 4 or not x.is_floating_point() or not x.numel():
            raise UserError(f"the layer {name!r} gives {tuple(x.shape)} of {x.dtype}; tap feature maps (N, C, H, W)")
        if len(x) != len(student[0]):
            raise UserError(
                f"the layer {name!r} gives {len(x)} items and {called[0]!r} {len(student[0])}; "
                "give teacher and student the same batch"
            )
    for name, x in zip(called[len(student) :], teacher, strict=True):
        if size_of(x) == (1, 1):
            raise UserError(
                f"the teacher's layer {name!r} gives a 1×1 map, which has no spatial attention; leave it out"
            )
