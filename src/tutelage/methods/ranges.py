"""Maps made comparable for SSIM: φ, to the teacher's width, and ψ, to the range [0, 1] that SSIM's constants are for.

    ψ(a) = (a - lowest) / (highest - lowest + 1e-6)

It cancels the scale of the student's channel, so the gradient grows as 1 / range: φ must never start at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.methods.parts import check_floating, check_layout
from tutelage.similarity.gram import full_precision, promote

NORMS = ("channel", "tensor", "teacher", "none")
ADAPTERS = ("auto", "always", "never")
EPSILON = 1e-6
FLAT = 1e-4  # of the median range: a student's channel below it is warned about


@dataclass(frozen=True)
class Ranges:
    """Over what the lowest and the highest value are taken, and how the gradient sees them.

    >>> s, t = Ranges().applied(torch.tensor([[[[2.0, 4.0]]]]), torch.tensor([[[[0.0, 9.0]]]]))
    >>> s.flatten().round(decimals=4).tolist(), t.flatten().round(decimals=4).tolist()
    ([0.0, 1.0], [0.0, 1.0])

    Attributes:
        norm: `"channel"`: of each image, channel and side, so that all channels count alike; `"tensor"`: of each image
            and side, so that channels count by their range; `"teacher"`: the teacher's per channel, for both sides;
            `"none"`: maps stay as they are and `span` is their range.
        span: L, the range of the values; None is 1, what the first three norms give.
        detach: no gradient through the student's lowest and highest value.
        min_range: floor of the student's ranges as a share of their median, against large gradients; 0 is none.
    """

    norm: str = "channel"
    span: float | None = None
    detach: bool = False
    min_range: float = 0.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"norm is one of {NORMS}, got {self.norm!r}; 'channel' is the default")
        if self.norm == "none" and self.span is None:
            raise UserError(
                "without normalisation SSIM needs L, the range of the maps' values; give span (norm='none')"
            )
        if (self.span is not None and not self.span > 0) or not 0 <= self.min_range <= 1:
            raise UserError(f"span is positive and min_range within [0, 1], got {self.span} and {self.min_range}")

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Refuse maps that cannot be compared position by position.

        Raises:
            UserError: they are not maps (B, C, H, W) of one shape and of floating dtypes, or have a single position.
        """
        shapes = f"{tuple(student.shape)} from the student and {tuple(teacher.shape)} from the teacher"
        if student.ndim != 4 or teacher.ndim != 4 or not (student.numel() and teacher.numel()):
            raise UserError(f"SSIM compares maps (B, C, H, W), got {shapes}; tap convolutional maps")
        if student.shape[:2] != teacher.shape[:2]:
            raise UserError(
                f"SSIM needs the same images and channels, got {shapes}; set adapter='auto' for other widths"
            )
        if student.shape[2:] != teacher.shape[2:]:
            raise UserError(
                f"SSIM needs maps of one size, got {shapes}; feed the teacher the student's transformed batch, or set "
                "resize='student'"
            )
        check_floating("SSIM needs floating-point maps", student, teacher)
        if student.shape[2:].numel() == 1 and self.norm in ("channel", "teacher"):
            raise UserError(f"a 1×1 map carries no structure under norm={self.norm!r}; drop this level")

    def applied(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both maps (B, C, H, W) normalised; float32 for half precision and inside autocast."""
        with full_precision(student.device):
            s, t = promote(student), promote(teacher)
            if self.norm == "none":
                return s, t
            over = (1, 2, 3) if self.norm == "tensor" else (2, 3)
            low_t, range_t = _low_and_range(t, over)
            low_s, range_s = (low_t, range_t) if self.norm == "teacher" else _low_and_range(s, over)
            if self.detach:
                low_s, range_s = low_s.detach(), range_s.detach()
            if self.min_range:
                range_s = torch.maximum(range_s, self.min_range * range_s.detach().median())
            return (s - low_s) / (range_s + EPSILON), (t - low_t) / (range_t + EPSILON)


def complaints(ranges: Ranges, student: Tensor, teacher: Tensor) -> list[str]:
    """Return what SSIM of these maps suffers from, one sentence each."""
    found = []
    spans = channel_ranges(student)
    flat = int((spans < FLAT * spans.median()).sum())
    if flat and not ranges.min_range and ranges.norm in ("channel", "tensor"):
        found.append(
            f"{flat} of {spans.numel()} channels of the student's maps vary less than {FLAT:g} of the median, and the "
            "gradient grows as 1 / range; set min_range=0.1 to bound it"
        )
    if ranges.norm == "none" and bool((student < 0).any() | (teacher < 0).any()):
        found.append("without normalisation negative values reward maps that differ; set norm='channel'")
    return found


def channel_ranges(maps: Tensor) -> Tensor:
    """Return highest minus lowest value of every image and channel, (B, C, 1, 1)."""
    return _low_and_range(promote(maps.detach()), (2, 3))[1]


def _low_and_range(x: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    low = x.amin(over, keepdim=True)
    return low, x.amax(over, keepdim=True) - low


def adapter(student: Tensor, teacher: Tensor, when: str) -> nn.Module:
    """Return φ, a 1×1 convolution that starts as the identity or, to another width, at Kaiming's scale; or nothing.

    >>> adapter(torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 8, 8), "auto")
    Conv2d(4, 6, kernel_size=(1, 1), stride=(1, 1))

    Args:
        student, teacher: maps (B, C, H, W).
        when: `"auto"`: if their widths differ, `"always"` or `"never"`.
    """
    check_layout(student, teacher, "of SSIM")
    mine, theirs = student.shape[1], teacher.shape[1]
    if student.ndim != 4 or when == "never" or (when == "auto" and mine == theirs):
        return nn.Identity()
    layer = nn.Conv2d(mine, theirs, 1, device=student.device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    nn.init.dirac_(layer.weight) if mine == theirs else nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return layer
