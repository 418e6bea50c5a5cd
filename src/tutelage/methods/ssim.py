"""SSIM, structural distillation: the student's maps have the teacher's local means, contrasts and patterns.

Source: P. de Rijk, L. Schneider, M. Cordts, D. Gavrila, "Structural Knowledge Distillation for Object Detection",
NeurIPS 2022, arXiv 2211.13133. There is no official code; written summaries of the paper name kornia's `ssim_loss`.

    L = task + weight · Σ_levels mean_{image, channel, position} (1 - SSIM(ψ(φ(s)), ψ(t))) / 2

s, t: maps (B, C, H, W) of student and teacher, such as all FPN levels; φ: a 1×1 convolution where widths differ; ψ:
`Ranges`, to [0, 1]; SSIM: `Structure`, an 11 × 11 Gaussian window in each channel. Symbols → arguments: λ `weight`,
α, β, γ `exponents`. 0 iff the normalised maps agree, ½ for unrelated ones, at most 1.

Left open by the sources, our choices: ψ per image and channel, with gradient through the extrema (as kornia); borders
are reflected, on levels too small for that `"renorm"`, warned of once.
Differs from kornia: no 1e-12 in the denominator (maps differ by up to 6e-10), variances clamped at 0, float32 outside
autocast: bf16 makes this loss negative. Differs from public copies: the adapter is built in `setup` and trained.

The gradient grows as 1 / (range of a student's channel): never start an adapter at 0; `min_range` bounds it.
Several processes: a mean over images, so that equal shares of a batch give the joined batch's gradient.
Cost: 20 to 50 mean squared errors of the same maps; the convolution's C_s · C_t parameters, dropped at ship.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_finite
from tutelage.methods.ranges import ADAPTERS, EPSILON, Ranges, adapter, channel_ranges, complaints
from tutelage.methods.structure import Structure
from tutelage.similarity.gram import promote

STRUCTURE, RANGES = Structure(), Ranges()
RESIZES, REDUCTIONS = (None, "student"), ("sum", "mean")
SMALL = "is too small for a reflected border, which becomes border='renorm': windows cut at the edge, renormalised"


def ssim_loss(
    student: Tensor, teacher: Tensor, structure: Structure = STRUCTURE, ranges: Ranges = RANGES,
    mask: Tensor | None = None, ignore_dead: bool = False,
) -> Tensor:  # fmt: skip
    """Return the mean of (1 - SSIM) / 2 over images, channels and positions, clamped to [0, 1] before.

    >>> maps = torch.arange(144.0).view(1, 1, 12, 12).sin()
    >>> round(ssim_loss(maps, 5 * maps + 2).item(), 4), ssim_loss(maps, -maps).item() > 0.9
    (0.0, True)

    Args:
        student, teacher: maps (B, C, H, W) of one shape, any floating dtype.
        structure: window, border and exponents of SSIM.
        ranges: how maps are brought to [0, 1].
        mask: positions that count, (B, 1, H, W), such as those outside of an image's padding; None is all.
        ignore_dead: leave out channels that are constant in the teacher's image: ½ each, and nothing to learn.

    Returns a scalar, float32 for half precision and inside autocast. Warns where a small map takes the border
    `"renorm"`. Raises UserError where maps do not fit each other, the window or the normalisation.
    """
    ranges.check(student, teacher)
    fitting = structure.fitting(student.shape[2:])
    if fitting is not structure:
        warnings.warn(f"a map of {student.shape[2]}×{student.shape[3]} {SMALL}", stacklevel=2)
    s, t = ranges.applied(student, teacher)
    errors = (0.5 - 0.5 * fitting.similarity(s, t, ranges.span or 1.0)).clamp(0, 1)
    if mask is None and not ignore_dead:
        return errors.mean()
    counts = torch.ones_like(errors[:1, :1]) if mask is None else mask.to(errors)
    if fitting.border == "valid" and mask is not None:
        edge = fitting.window // 2
        counts = counts[..., edge : counts.shape[-2] - edge, edge : counts.shape[-1] - edge]
    if ignore_dead:
        counts = counts * (channel_ranges(teacher) >= EPSILON)
    counts = counts.expand_as(errors)
    return (errors * counts).sum() / counts.sum().clamp_min(1)


class SSIM(Method):
    """Structural distillation of maps; one term `ssim.<student tap>` per pair.

    Args:
        pairs: student tap → teacher tap, maps (B, C, H, W) of one size.
        weight: λ, of the sum over levels; 2 and 4 are the paper's best.
        structure, ranges, ignore_dead: as of `ssim_loss`.
        adapter: `"auto"` where widths differ, `"always"` (for unlike networks; starts as the identity), `"never"`.
        resize: None, or `"student"` to bring its maps to the teacher's size.
        level_reduction: `"sum"`, the paper's, or `"mean"`.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="P. de Rijk et al., Structural Knowledge Distillation for Object Detection, NeurIPS 2022, 2211.13133",
        tasks="detection, segmentation",
        needs="pairs of maps of equal size, such as FPN levels; widths may differ",
        trains="a 1×1 convolution per pair whose widths differ",
    )

    def __init__(
        self, pairs: Mapping[str, str], weight: float = 2.0, structure: Structure = STRUCTURE, ranges: Ranges = RANGES,
        ignore_dead: bool = False, adapter: str = "auto", resize: str | None = None, level_reduction: str = "sum",
        task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not pairs or adapter not in ADAPTERS or resize not in RESIZES or level_reduction not in REDUCTIONS:
            raise UserError(
                f"SSIM needs pairs of taps, adapter in {ADAPTERS}, resize in {RESIZES} and level_reduction in "
                f"{REDUCTIONS}, got {pairs}, {adapter!r}, {resize!r} and {level_reduction!r}"
            )
        self.pairs, self.weight, self.structure, self.ranges = dict(pairs), weight, structure, ranges
        self.ignore_dead, self.adapter, self.resize = ignore_dead, adapter, resize
        self.level_reduction, self.task_weight = level_reduction, task_weight
        self.student_taps, self.teacher_taps = tuple(self.pairs), tuple(self.pairs.values())
        self.projections = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the adapters, try every level, and warn of what an SSIM of these maps would suffer from."""
        check_finite(example)
        taps = [(example.student.tap(mine), example.teacher.tap(theirs)) for mine, theirs in self.pairs.items()]
        self.projections = nn.ModuleList(adapter(*maps, self.adapter) for maps in taps)
        self(example)
        for (mine, theirs), maps in zip(self.pairs.items(), self._maps(example), strict=True):
            found = complaints(self.ranges, *maps)
            if self.structure.fitting(maps[1].shape[2:]) is not self.structure:
                found.append(f"a map of {maps[1].shape[2]}×{maps[1].shape[3]} {SMALL}")
            for sentence in found:
                warnings.warn(f"SSIM of {mine} → {theirs}: {sentence}", stacklevel=2)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return one term per pair."""
        share = self.weight / (len(self.pairs) if self.level_reduction == "mean" else 1)
        terms = {}
        for (mine, theirs), maps in zip(self.pairs.items(), self._maps(step), strict=True):
            try:
                fitting = self.structure.fitting(maps[1].shape[2:])
                loss = ssim_loss(*maps, fitting, self.ranges, ignore_dead=self.ignore_dead)
            except UserError as error:
                raise UserError(f"SSIM of {mine} → {theirs}: {error}") from error
            terms[f"ssim.{mine}"] = share * loss
        return terms

    def _maps(self, step: Step) -> Iterator[tuple[Tensor, Tensor]]:
        for (mine, theirs), project in zip(self.pairs.items(), self.projections, strict=True):
            student, teacher = project(step.student.tap(mine)), step.teacher.tap(theirs)
            if self.resize and student.shape[2:] != teacher.shape[2:]:
                student = F.interpolate(promote(student), teacher.shape[2:], mode="bilinear", align_corners=False)
            yield student, teacher
