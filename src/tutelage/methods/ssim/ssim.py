"""SSIM, structural distillation: local means, contrasts and patterns of maps as the teacher's.

Source: P. de Rijk, L. Schneider, M. Cordts, D. Gavrila, "Structural Knowledge Distillation for
Object Detection", NeurIPS 2022, arXiv 2211.13133. There is no official code; written summaries of
the paper name kornia's `ssim_loss`.

    L = task_weight · task
        + weight · Σ_levels mean_{image, channel, position} (1 - SSIM(ψ(φ(s)), ψ(t))) / 2

s, t: maps (B, C, H, W) of student and teacher, such as all FPN levels. φ: a 1×1 convolution where
widths differ. ψ: min-max normalization to [0, 1], `normalize_maps`. SSIM: `ssim_index`, with an
11 × 11 Gaussian window in each channel. The loss of a level is 0 iff the normalized maps agree, ½
for unrelated ones, at most 1.

Symbols → arguments: λ → `weight`; α, β, γ → `exponents`; K1, K2 → `k1`, `k2`; L → `max_val`.

Left open by the sources, our choices: ψ per image and channel, with gradient through the extrema
(as kornia); borders are reflected, and on levels too small for that `"renorm"`, with one warning.

Differs from kornia: no 1e-12 in the denominator (maps differ by up to 6e-10), variances are clamped
at 0, and it runs in float32 outside autocast, since bf16 makes this loss negative. Differs from
public copies: the adapter is built in `setup` and trained.

The gradient grows as 1 / (range of a student's channel), which `min_range` bounds: an adapter must
not start at 0. Several processes: it is a mean over images, so that equal shares of a batch give
the joined batch's gradient.

Cost: 20 to 50 mean squared errors of the same maps. The convolution has C_s · C_t parameters and is
dropped when the student is deployed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, MethodInfo, Step, Teacher
from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods._layer_pairs import check_built, checked_pairs
from tutelage.methods._projection import adapter as build_adapter
from tutelage.methods.ssim.index import Exponents, border_for, check_window, ssim_index
from tutelage.methods.ssim.normalization import (
    EPSILON,
    Normalize,
    channel_ranges,
    check_maps,
    check_normalization,
    normalize_maps,
    range_warnings,
)
from tutelage.methods.ssim.pieces import sum_in_pieces
from tutelage.methods.ssim.window import Border

Adapter = Literal["auto", "always", "never"]
Resize = Literal["student"] | None

SMALL = (
    "is too small for a reflected border, which becomes border='renorm': windows are cut at the "
    "edge and renormalized"
)


def ssim_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    max_val: float | None = None,
    border: Border = "reflect",
    exponents: Exponents = (1.0, 1.0, 1.0),
    normalize: Normalize = "channel",
    detach_range: bool = False,
    min_range: float = 0.0,
    ignore_dead: bool = False,
) -> Tensor:
    """Return the mean of (1 - SSIM) / 2, clamped to [0, 1], over images, channels and positions.

    >>> maps = torch.arange(144.0).view(1, 1, 12, 12).sin()
    >>> round(ssim_loss(maps, 5 * maps + 2).item(), 4), ssim_loss(maps, -maps).item() > 0.9
    (0.0, True)

    Args:
        student: maps (B, C, H, W) of any floating dtype.
        teacher: maps of the same shape.
        window_size: side of the Gaussian window, odd.
        sigma: standard deviation of the window's weights.
        k1: of the constant C1 = (k1 · max_val)².
        k2: of the constant C2 = (k2 · max_val)².
        max_val: L, the range of the values; None is 1, which normalization gives. It must be given
            with `normalize="none"`.
        border: `"reflect"`, `"valid"` (whole windows only), or `"renorm"` (windows cut at the
            border and renormalized, for maps of any size); see `ssim_index`.
        exponents: of luminance, contrast and structure; sign(x) |x|^e where e is neither 0 nor 1.
        normalize: over what the lowest and highest value are taken, `"channel"`, `"tensor"`,
            `"teacher"` or `"none"`; see `normalize_maps`.
        detach_range: no gradient through the student's lowest and highest value.
        min_range: floor of the student's ranges as a share of their median, which bounds the
            gradient; 0 is none.
        ignore_dead: leave out channels that are constant in the teacher's image: they cost ½ each
            and have nothing to teach.

    Returns:
        A scalar, float32 for half precision and inside autocast. A warning says that a small map
        takes the border `"renorm"`.

    Raises:
        UserError: If the maps do not fit each other, the window or the normalization, or if an
            option is none of the choices.
    """
    check_window(window_size, sigma, border, exponents, (k1, k2))
    check_normalization(normalize, max_val, min_range)
    check_maps(student, teacher, normalize)
    fitting_border = border_for(student.shape[2:], window_size, border)
    if fitting_border != border:
        warnings.warn(f"a map of {student.shape[2]}×{student.shape[3]} {SMALL}", stacklevel=2)
    normalized = partial(
        normalize_maps, normalize=normalize, detach_range=detach_range, min_range=min_range
    )
    index = partial(
        ssim_index,
        window_size=window_size,
        sigma=sigma,
        k1=k1,
        k2=k2,
        max_val=1.0 if max_val is None else max_val,
        border=fitting_border,
        exponents=exponents,
    )
    # Which channels count, (B, C, 1, 1).
    alive = channel_ranges(teacher) >= EPSILON if ignore_dead else None
    by_channel = normalize != "tensor" and not min_range
    if not by_channel:  # the ranges depend on other channels, which a piece does not have
        student, teacher = normalized(student, teacher)

    def sum_of_errors(s: Tensor, t: Tensor, channels: slice) -> Tensor:
        if by_channel:
            s, t = normalized(s, t)
        errors = (0.5 - 0.5 * index(s, t)).clamp(0, 1)
        return (errors if alive is None else errors * alive[:, channels]).sum()

    total = sum_in_pieces(sum_of_errors, student, teacher)
    height, width = student.shape[2:]
    margin = window_size - 1 if fitting_border == "valid" else 0
    positions = (height - margin) * (width - margin)
    if alive is None:
        return total / (student.shape[0] * student.shape[1] * positions)
    return total / (alive.sum() * positions).clamp_min(1)


class SSIM(Method):
    """Structural distillation of pairs of maps; one term `ssim/<student layer>` per pair.

    >>> SSIM({"layer3": "layer3"}, weight=4.0).student_layers
    ('layer3',)

    Args:
        layer_pairs: student layer → teacher layer, which give maps (B, C, H, W) of one size.
        weight: λ, of every level; 2 and 4 are the paper's best.
        adapter: where a 1×1 convolution is trained. `"auto"`: where widths differ. `"always"`: for
            every pair, as for unlike networks; it starts as the identity. `"never"`.
        resize: `"student"` resizes its maps bilinearly to the teacher's size; None is an error for
            maps of two sizes.
        window_size: as of `ssim_loss`.
        sigma: as of `ssim_loss`.
        k1: as of `ssim_loss`.
        k2: as of `ssim_loss`.
        max_val: as of `ssim_loss`.
        border: as of `ssim_loss`.
        exponents: as of `ssim_loss`.
        normalize: as of `ssim_loss`.
        detach_range: as of `ssim_loss`.
        min_range: as of `ssim_loss`.
        ignore_dead: as of `ssim_loss`.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If there are no pairs, or an option is none of the choices.
    """

    info = MethodInfo(
        paper=(
            "P. de Rijk et al., Structural Knowledge Distillation for Object Detection, "
            "NeurIPS 2022, 2211.13133"
        ),
        tasks="detection, segmentation",
        needs="pairs of maps of equal size, such as FPN levels; widths may differ",
        trains="a 1×1 convolution per pair whose widths differ",
    )

    def __init__(
        self,
        layer_pairs: Mapping[str, str],
        *,
        weight: float = 2.0,
        adapter: Adapter = "auto",
        resize: Resize = None,
        window_size: int = 11,
        sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        max_val: float | None = None,
        border: Border = "reflect",
        exponents: Exponents = (1.0, 1.0, 1.0),
        normalize: Normalize = "channel",
        detach_range: bool = False,
        min_range: float = 0.0,
        ignore_dead: bool = False,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("SSIM", weight, task_weight)
        check_choice("adapter", adapter, Adapter)
        check_choice("resize", resize, Resize)
        check_window(window_size, sigma, border, exponents, (k1, k2))
        check_normalization(normalize, max_val, min_range)
        self.layer_pairs = checked_pairs("SSIM", layer_pairs)
        self.weight = weight
        self.adapter = adapter
        self.resize = resize
        self.window_size = window_size
        self.sigma = sigma
        self.k1 = k1
        self.k2 = k2
        self.max_val = max_val
        self.border = border
        self.exponents = exponents
        self.normalize = normalize
        self.detach_range = detach_range
        self.min_range = min_range
        self.ignore_dead = ignore_dead
        self.task_weight = task_weight
        self.student_layers = tuple(self.layer_pairs)
        self.teacher_layers = tuple(self.layer_pairs.values())
        self.adapters = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the adapters, and warn about maps that are hard to train with SSIM."""
        self.adapters = nn.ModuleList()
        for student_layer, teacher_layer in self.layer_pairs.items():
            student_maps = example.student.feature(student_layer)
            teacher_maps = example.teacher.feature(teacher_layer)
            layer = build_adapter(student_maps, teacher_maps, self.adapter)
            # They run at once, before the `Distiller` moves them to the student's device and dtype.
            dtype = torch.float64 if student_maps.dtype == torch.float64 else None
            self.adapters.append(layer.to(student_maps.device, dtype))
        for student_layer, student_maps, teacher_maps, border in self._levels(example):
            messages = range_warnings(
                student_maps,
                teacher_maps,
                normalize=self.normalize,
                min_range=self.min_range,
            )
            if border != self.border:
                height, width = student_maps.shape[2:]
                messages.append(f"a map of {height}×{width} {SMALL}")
            pair = f"{student_layer} → {self.layer_pairs[student_layer]}"
            for message in messages:
                warnings.warn(f"SSIM of {pair}: {message}", stacklevel=2)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return one term per pair."""
        terms = {}
        for student_layer, student, teacher, border in self._levels(step):
            loss = ssim_loss(
                student,
                teacher,
                window_size=self.window_size,
                sigma=self.sigma,
                k1=self.k1,
                k2=self.k2,
                max_val=self.max_val,
                border=border,  # fits the maps, so that no step warns again
                exponents=self.exponents,
                normalize=self.normalize,
                detach_range=self.detach_range,
                min_range=self.min_range,
                ignore_dead=self.ignore_dead,
            )
            terms[f"ssim/{student_layer}"] = self.weight * loss
        return terms

    def _levels(self, step: Step) -> Iterator[tuple[str, Tensor, Tensor, Border]]:
        """Yield the student layer, both maps in one shape, and the fitting border of every pair."""
        check_built("SSIM", self.adapters, self.layer_pairs)
        pairs = zip(self.layer_pairs.items(), self.adapters, strict=True)
        for (student_layer, teacher_layer), adapter in pairs:
            student = adapter(step.student.feature(student_layer))
            teacher = step.teacher.feature(teacher_layer)
            size = teacher.shape[2:]
            if self.resize == "student" and student.shape[2:] != size:
                student = F.interpolate(
                    promote(student), size, mode="bilinear", align_corners=False
                )
            try:
                check_maps(student, teacher, self.normalize)
                border = border_for(size, self.window_size, self.border)
            except UserError as error:
                raise UserError(f"SSIM of {student_layer} → {teacher_layer}: {error}") from error
            yield student_layer, student, teacher, border
