"""PCKA, patch-based kernel alignment for feature maps.

In every channel, the student learns which patches of a map the teacher finds alike. It is made for
detection and segmentation, whose batches are too small to relate images to each other.

Source: Z. Zhou et al., "Rethinking Centered Kernel Alignment in Knowledge Distillation", IJCAI
2024, arXiv 2401.11824; official code Klayand/PCKA@cec05de `cka_loss.py`.

    L = task_weight · task
        + Σ_levels mean_c [intra_weight · (1 - A(X_c, Y_c)) + inter_weight · (1 - A(X_cᵀ, Y_cᵀ))]

X_c, Y_c: channel c of teacher and student as a matrix of p patches × q columns (image, row and
column in the patch), q = B · 16 · 16, after the maps (B, C, H, W) are resized up to a multiple of
16. A: `alignment`, uncentered.

Symbols of the code → arguments: `with_l2_norm` → `scale="rows"`; the classes `…_batch` and `…_hw` →
`over="image"` and `over="position"`.

Differs from the official code:
- The terms are w (1 - A), at best 0, instead of -w A; the gradient is the same.
- `inter_weight` is a weight; there any value but 0 adds the inter term times the *intra* weight.
- A single patch has no relations, which crashes the official code. Here it is an error before
  training, which `patch_size="auto"` avoids, and a later batch of such small maps adds 0.
- A channel that is zero in the teacher leaves the mean; one that is zero in the student has A = 0
  and gradient 0. In the official code either makes the whole loss NaN.
- The 1×1 projection is built in `setup` and trained, instead of made anew in every step.
- The loss is computed in float32, outside autocast, for all channels in batched products; the
  teacher stays in eval mode.

Several processes: each relates the patches of its own images, as in the official code, and
gradients are averaged. Grams add up over the images of a process, so two processes differ from one
with the joined batch unless `over="image"`.

An uncentered A is near 1 for any two maps: judge the result by a debiased CKA instead.

Cost: both maps are cut into patches in the forward and again in the backward pass, and multiplied
into p × p matrices; docs/methods/pcka.md has times and memory. The projection has C_s · C_t
parameters and is dropped when the student is deployed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tutelage.core import Around, Method, MethodInfo, Step, Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods._layer_pairs import check_built, checked_pairs
from tutelage.methods._projection import projection
from tutelage.methods.pcka.agreement_map import agreement_map
from tutelage.methods.pcka.alignment import PatchAlignment, patch_alignment
from tutelage.methods.pcka.patches import Over, PatchSize, check_patches
from tutelage.similarity.alignment import Estimator, Scale


def pcka_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    intra_weight: float | None = 10.0,
    inter_weight: float | None = None,
    patch_size: PatchSize = 16,
    over: Over = "channel",
    scale: Scale | None = None,
    center: bool = False,
    estimator: Estimator = "biased",
) -> dict[str, Tensor]:
    """Return the weighted means of 1 - A between patches and between columns, by name.

    >>> maps = torch.arange(2 * 3 * 32 * 32.0).view(2, 3, 32, 32).sin()
    >>> terms = pcka_loss(maps, 3 * maps, inter_weight=1.0)
    >>> {name: abs(round(term.item(), 4)) for name, term in terms.items()}
    {'intra': 0.0, 'inter': 0.0}

    Args:
        student: maps (B, C, H, W) of any floating dtype.
        teacher: maps (B, C, H', W'); the sizes may differ if they round up to one grid of patches.
        intra_weight: weight of the alignment between patches; None or 0 is off.
        inter_weight: weight of the alignment between columns (positions in the patch, over all
            images); None or 0 is off.
        patch_size: height and width of a patch; `"auto"` is 16, halved for a small map until there
            are 4 patches.
        over: what the mean is over: `"channel"`, `"image"` or `"position"` in the patch.
        scale: of the kernels, None, `"rows"` or `"cosine"`, see `alignment`.
        center: center the kernels.
        estimator: `"biased"` or `"debiased"`, see `alignment`.

    Returns:
        Scalars `intra` and `inter`, those that have a weight; float32 for half precision and inside
        autocast. They are 0 without gradient if the whole teacher is zero.

    Raises:
        UserError: If the maps do not fit each other or there is nothing to relate, as in a single
            patch.
    """
    check_weights("PCKA", intra_weight, inter_weight, optional=True)
    weights = _weights(intra_weight, inter_weight)
    alignments = patch_alignment(
        student,
        teacher,
        terms=weights,
        patch_size=patch_size,
        over=over,
        scale=scale,
        center=center,
        estimator=estimator,
    )
    return {name: weights[name] * aligned.loss() for name, aligned in alignments.items()}


class PCKA(Method):
    """Patch-based kernel alignment of pairs of maps.

    The terms are `pcka/intra/<student layer>` and `pcka/inter/<student layer>`. A 1×1 convolution
    is trained for every pair whose widths differ.

    >>> PCKA({"layer3": "layer3"}, patch_size="auto").student_layers
    ('layer3',)

    Args:
        layer_pairs: student layer → teacher layer, which give maps (B, C, H, W).
        intra_weight: as of `pcka_loss`, for every pair.
        inter_weight: as of `pcka_loss`, for every pair.
        patch_size: as of `pcka_loss`.
        over: as of `pcka_loss`.
        scale: as of `pcka_loss`.
        center: as of `pcka_loss`.
        estimator: as of `pcka_loss`.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If there are no pairs, no weight, or an option is none of the choices.
    """

    info = MethodInfo(
        paper=(
            "Z. Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, "
            "IJCAI 2024, 2401.11824"
        ),
        tasks="detection, segmentation",
        needs="pairs of maps of equal stride, such as FPN levels; widths may differ",
        trains="a 1×1 projection per pair whose widths differ",
    )
    search_space = (Around("intra_weight", 10.0), Around("inter_weight", 10.0))

    def __init__(
        self,
        layer_pairs: Mapping[str, str],
        *,
        intra_weight: float | None = 10.0,
        inter_weight: float | None = None,
        patch_size: PatchSize = 16,
        over: Over = "channel",
        scale: Scale | None = None,
        center: bool = False,
        estimator: Estimator = "biased",
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("PCKA", intra_weight, inter_weight, optional=True)
        check_weights("PCKA", task_weight)
        if not (intra_weight or inter_weight):
            raise UserError("PCKA needs a weight: intra_weight or inter_weight")
        check_patches(patch_size, over)
        check_choice("scale", scale, Scale | None)
        check_choice("estimator", estimator, Estimator)
        self.layer_pairs = checked_pairs("PCKA", layer_pairs)
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.patch_size = patch_size
        self.over = over
        self.scale = scale
        self.center = center
        self.estimator = estimator
        self.task_weight = task_weight
        self.student_layers = tuple(self.layer_pairs)
        self.teacher_layers = tuple(self.layer_pairs.values())
        self.projections = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the projections, and check that every level has something to teach.

        Raises:
            UserError: If the maps of a pair do not fit, are a single patch, or if the teacher's are
                zero. The message names the pair.
        """
        self.projections = nn.ModuleList()
        for student_layer, teacher_layer in self.layer_pairs.items():
            student_maps = example.student.feature(student_layer)
            teacher_maps = example.teacher.feature(teacher_layer)
            layer = projection(student_maps, teacher_maps, f"{student_layer} → {teacher_layer}")
            # They run at once, before the `Distiller` moves them to the student's device and dtype.
            dtype = torch.float64 if student_maps.dtype == torch.float64 else None
            self.projections.append(layer.to(student_maps.device, dtype))
        for student_layer, alignments in self._alignments(example, strict=True).items():
            if not all(aligned.alive.any() for aligned in alignments.values()):
                raise UserError(
                    f"PCKA of {student_layer} → {self.layer_pairs[student_layer]}: the teacher's "
                    f"map is dead in every {self.over} (zero, or constant if centered), so there "
                    "is nothing to learn; tap another layer or check its weights"
                )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight, of every pair."""
        weights = _weights(self.intra_weight, self.inter_weight)
        terms = {}
        for student_layer, alignments in self._alignments(step).items():
            for name, aligned in alignments.items():
                terms[f"pcka/{name}/{student_layer}"] = weights[name] * aligned.loss()
        return terms

    def agreement_maps(self, step: Step) -> dict[str, Tensor]:
        """Return an `agreement_map` of the first image for every level, by student layer."""
        agreement = {}
        for student_layer, student_maps, teacher_maps in self._maps(step):
            agreement[student_layer] = agreement_map(
                student_maps[:1], teacher_maps[:1], self.patch_size
            )
        return agreement

    def _alignments(self, step: Step, strict: bool = False) -> dict[str, dict[str, PatchAlignment]]:
        """Return the alignments of every pair by student layer, and by `intra` and `inter`."""
        terms = _weights(self.intra_weight, self.inter_weight)
        levels = {}
        for student_layer, student_maps, teacher_maps in self._maps(step):
            try:
                levels[student_layer] = patch_alignment(
                    student_maps,
                    teacher_maps,
                    terms=terms,
                    patch_size=self.patch_size,
                    over=self.over,
                    scale=self.scale,
                    center=self.center,
                    estimator=self.estimator,
                    strict=strict,
                )
            except UserError as error:
                teacher_layer = self.layer_pairs[student_layer]
                raise UserError(f"PCKA of {student_layer} → {teacher_layer}: {error}") from error
        return levels

    def _maps(self, step: Step) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the student layer, the student's projected map and the teacher's of every pair."""
        check_built("PCKA", self.projections, self.layer_pairs)
        pairs = zip(self.layer_pairs.items(), self.projections, strict=True)
        for (student_layer, teacher_layer), project in pairs:
            student_maps = project(step.student.feature(student_layer))
            yield student_layer, student_maps, step.teacher.feature(teacher_layer)


def _weights(intra_weight: float | None, inter_weight: float | None) -> dict[str, float]:
    """Return the weights of the terms that are on."""
    weights = {"intra": intra_weight, "inter": inter_weight}
    return {name: weight for name, weight in weights.items() if weight}
