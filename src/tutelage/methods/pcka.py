"""PCKA, patch-based kernel alignment: channel by channel, the student relates the patches of a map as the teacher does.

Source: Z. Zhou et al., "Rethinking Centered Kernel Alignment in Knowledge Distillation", IJCAI 2024, arXiv
2401.11824; official code Klayand/PCKA@cec05de `cka_loss.py`. It is for batches too small to relate images.

    L = task + Σ_levels mean_c [intra · (1 - A(X_c, Y_c)) + inter · (1 - A(X_cᵀ, Y_cᵀ))]

X_c, Y_c: channel c of teacher and student as p patches × q columns (image, row, column in the patch), q = B · 16 · 16,
after a resize of the maps (B, C, H, W) up to a multiple of 16; A: `alignment`, uncentred. Code → arguments:
`with_l2_norm` `scale="rows"`; the classes `…_batch` and `…_hw` `over="image"` and `"position"`.

Differs from the official code:
- w (1 - A), at best 0, for -w A: same gradient. `inter` is a weight; there any value but 0 adds the term times *intra*.
- One patch has no relations: an error before training (there a crash), for which `patch="auto"` is the cure; a later
  batch of such small maps adds 0. A channel that is dead (zero) in the teacher leaves the mean and is counted in
  `left_out`; one that is dead in the student has A = 0 and gradient 0. There, either makes the whole loss NaN.
- The 1×1 adapter is built in `setup` and trained; there it is made anew, never trained.
- float32 outside autocast; all channels in batched products; the teacher stays in eval mode.

Several processes: each relates the patches of its own images, as in the official code, and gradients are averaged.
Grams add up over the images of a process, so two processes differ from one with both batches unless `over="image"`.
An uncentred A is near 1 for any two maps: judge by a debiased CKA. Cost: see docs/methods/pcka.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.mimic import projection
from tutelage.methods.parts import check_finite
from tutelage.methods.patch_alignment import PLAIN, Aligned, patch_alignment
from tutelage.methods.patch_map import patch_map
from tutelage.methods.patches import Patches
from tutelage.similarity import Kernel

CHANNELS = Patches()


def pcka_loss(
    student: Tensor, teacher: Tensor, intra: float | None = 10.0, inter: float | None = None,
    patches: Patches = CHANNELS, kernel: Kernel = PLAIN,
) -> dict[str, Tensor]:  # fmt: skip
    """Return `intra` · mean (1 - A) between patches and `inter` · mean (1 - A) between columns, by name.

    >>> import torch
    >>> maps = torch.arange(2 * 3 * 32 * 32.0).view(2, 3, 32, 32).sin()
    >>> {name: abs(round(term.item(), 4)) for name, term in pcka_loss(maps, 3 * maps, inter=1.0).items()}
    {'intra': 0.0, 'inter': 0.0}

    Args:
        student, teacher: maps (B, C, H, W) of any floating dtype; H, W may differ if they round up to one grid.
        intra, inter: weights of the two terms; None or 0 is off.
        patches: size of the patches, and what the mean is over.
        kernel: options of `alignment`; uncentred and unscaled is official.

    Returns scalars, float32 for half precision and inside autocast; 0 without gradient if the whole teacher is dead.
    Raises UserError where the maps do not fit or there is nothing to relate, as in a single patch.
    """
    weights = _weights(intra, inter)
    found = patch_alignment(student, teacher, patches, kernel, weights)
    return {name: weights[name] * aligned.loss() for name, aligned in found.items()}


class PCKA(Method):
    """Patch-based kernel alignment; terms `pcka.intra.<student tap>` and `pcka.inter.<student tap>` per pair.

    Args:
        pairs: student tap → teacher tap, maps (B, C, H, W); a 1×1 convolution is trained where widths differ.
        intra, inter: weights of each level's terms; None or 0 is off.
        patch: height and width of a patch, or `"auto"`: 16, halved for a small map until there are 4 patches.
        over: what the mean is over: `"channel"`, `"image"` or `"position"`.
        scale, center, estimator: of the kernels, see `alignment`.
        task_weight: factor of the supervised loss.

    `left_out`, by term: how many channels (images, positions) of the last batch had nothing to teach.
    """

    card = Card(
        paper="Z. Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, IJCAI 2024, 2401.11824",
        tasks="detection, segmentation",
        needs="pairs of maps of equal stride, such as FPN levels; widths may differ",
        trains="a 1×1 projection per pair whose widths differ",
    )

    def __init__(
        self, pairs: Mapping[str, str], intra: float | None = 10.0, inter: float | None = None,
        patch: int | str = 16, over: str = "channel", scale: str | None = None, center: bool = False,
        estimator: str = "biased", task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not pairs or not (intra or inter):
            raise UserError(
                "PCKA needs pairs of taps, such as pairs={'layer3': 'layer3'}, and a weight: intra or inter"
            )
        Patches(patch, over)
        self.pairs, self.intra, self.inter, self.patch, self.over = dict(pairs), intra, inter, patch, over
        self.scale, self.center, self.estimator, self.task_weight = scale, center, estimator, task_weight
        self.student_taps, self.teacher_taps = tuple(self.pairs), tuple(self.pairs.values())
        self.projections = nn.ModuleList()
        self.left_out: dict[str, Tensor] = {}

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the projections and try every level: are there enough patches, does any channel teach."""
        check_finite(example)
        taps = [(example.student.tap(mine), example.teacher.tap(theirs)) for mine, theirs in self.pairs.items()]
        self.projections = nn.ModuleList(
            projection(*maps, f"{mine} → {self.pairs[mine]}").to(maps[0].device)
            for mine, maps in zip(self.pairs, taps, strict=True)
        )
        for mine, found in self._levels(example, strict=True).items():
            if not all(aligned.alive.any() for aligned in found.values()):
                raise UserError(
                    f"PCKA of {mine} → {self.pairs[mine]}: the teacher's map is dead in every {self.over} (zero, or "
                    "constant if centred), so there is nothing to learn; tap another layer or check its weights"
                )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight, of every pair."""
        terms, weights = {}, _weights(self.intra, self.inter)
        for mine, found in self._levels(step).items():
            for name, aligned in found.items():
                terms[f"pcka.{name}.{mine}"] = weights[name] * aligned.loss()
                self.left_out[f"pcka.{name}.{mine}"] = (~aligned.alive).sum()
        return terms

    def inspect(self, step: Step) -> dict[str, Tensor]:
        """Return a `patch_map` of every level, by student tap."""
        levels = zip(self.pairs.items(), self.projections, strict=True)
        maps = {mine: (project(step.student.tap(mine)), step.teacher.tap(theirs)) for (mine, theirs), project in levels}
        return {mine: patch_map(one[:1], other[:1], self.patch) for mine, (one, other) in maps.items()}

    def _levels(self, step: Step, strict: bool = False) -> dict[str, dict[str, Aligned]]:
        patches, kernel = Patches(self.patch, self.over), Kernel(self.center, self.scale, self.estimator)
        weights, levels = _weights(self.intra, self.inter), {}
        for (mine, theirs), project in zip(self.pairs.items(), self.projections, strict=True):
            maps = project(step.student.tap(mine)), step.teacher.tap(theirs)
            try:
                levels[mine] = patch_alignment(*maps, patches, kernel, weights, strict)
            except UserError as error:
                raise UserError(f"PCKA of {mine} → {theirs}: {error}") from error
        return levels


def _weights(intra: float | None, inter: float | None) -> dict[str, float]:
    return {name: weight for name, weight in (("intra", intra), ("inter", inter)) if weight}
