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
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Around, Method, MethodInfo, Step, Teacher
from tutelage.core.precision import promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods._layer_pairs import check_built, checked_pairs
from tutelage.methods._projection import adapter as build_adapter
from tutelage.methods.ssim.index import Exponents, border_for, check_window
from tutelage.methods.ssim.loss import SMALL, ssim_loss
from tutelage.methods.ssim.normalization import (
    Normalize,
    check_maps,
    check_normalization,
    range_warnings,
)
from tutelage.methods.ssim.window import Border

Adapter = Literal["auto", "always", "never"]
Resize = Literal["student"] | None


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
    search_space = (Around("weight", 10.0),)

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
