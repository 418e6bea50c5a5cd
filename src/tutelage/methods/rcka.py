"""RCKA, relation-centred kernel alignment: the student arranges the items of a batch as the teacher does.

Source: Z. Zhou et al., "Rethinking Centered Kernel Alignment in Knowledge Distillation", IJCAI 2024, arXiv
2401.11824; official code Klayand/PCKA@cec05de `cka_loss.py`, Klayand/Distill_Knowledge@5312bdf `CKA.py`, `CKASP.py`.

    L = CE + ramp · [intra · (1 - A(s, t)) + inter · (1 - A(sᵀ, tᵀ))] + feature · Σ_stages (1 - A(f_s, f_t))

s, t: logits (N, C), whose transposes relate the classes, or (N, C, H, W), flattened; f: features; A: `alignment`.
Paper → arguments: β_intra `intra`, β_inter `inter`, α `feature`; code → arguments: `with_l2_norm` `scale="rows"`.
LCKA is RCKA without pairs, FCKA is RCKA with `intra=None, inter=None`.

Differs from the official code:
- w (1 - A), at best 0, for -w A: same gradient. `inter` is a weight; there any value but 0 adds the term times *intra*.
- The logit terms fade in over `ramp`. Acting from the first step, blind as they are to rotations of the logits,
  they drown the labels, unless the run has hundreds of epochs. `ramp=None` is official.
- `gram="plain"`, as in the paper's figure; `"normalised"` (official) aligns the Grams' unit rows instead and has
  almost no signal on non-negative features: independent ReLU features already agree to 0.99999.
- Several processes relate the items of the whole batch, not of each one's share. float32 outside autocast; zero rows
  and constant features are safe; the teacher stays in eval mode.

An uncentred A (default, official) is near 1 after any ReLU: judge by a debiased CKA. Cost of both logit terms
at (64, 1000): about 1 ms on one core, where the official form takes about 90 ms.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_finite, fade_in
from tutelage.similarity.alignment import Kernel
from tutelage.similarity.gather import joined
from tutelage.similarity.gram import factor, full_precision, product, promote, unit_rows

ROWS, PLAIN = Kernel(scale="rows"), Kernel()


def rcka_loss(
    student: Tensor, teacher: Tensor, intra: float | None = 15.0, inter: float | None = 15.0, kernel: Kernel = ROWS
) -> dict[str, Tensor]:
    """Return `intra` · (1 - A(s, t)) and `inter` · (1 - A(sᵀ, tᵀ)) by name; a weight of None or 0 is off.

    >>> import torch
    >>> {name: round(term.item(), 4) for name, term in rcka_loss(torch.eye(4), 3 * torch.eye(4), inter=None).items()}
    {'intra': 0.0}

    Args:
        student, teacher: logits (N, C), or (N, ...) to be flattened; C may differ only without the inter term.
        intra, inter: weights of the sample-wise and of the class-wise term.
        kernel: options of `alignment`; row-scaled and uncentred is official.

    Returns scalars, float32 for half precision and inside autocast. Raises UserError where shapes or dtypes do not
    fit, or there are too few items or classes to relate (see `alignment`).
    """
    s, t = (x.flatten(1) if x.ndim > 2 else x for x in (student, teacher))
    if intra and inter:
        one, two = kernel.pair(t, s)
        return {"intra": intra * (1.0 - one), "inter": inter * (1.0 - two)}
    if intra:
        return {"intra": intra * (1.0 - kernel.between(t, s))}
    return {"inter": inter * (1.0 - kernel.between(t.mT, s.mT))} if inter else {}


def rcka_feature_loss(student: Tensor, teacher: Tensor, kernel: Kernel = PLAIN, gram: str = "plain") -> Tensor:
    """Return 1 - A of the features (N, ...) of the same items, flattened, of any widths; a scalar.

    >>> import torch
    >>> round(rcka_feature_loss(torch.eye(4), torch.eye(4).view(4, 2, 2)).item(), 4)
    0.0

    `gram` is "plain", or "normalised" (official): align the Grams' unit rows. UserError as in `rcka_loss`.
    """
    if gram not in ("plain", "normalised"):
        raise UserError(f"gram is 'plain' or 'normalised', got {gram!r}; choose one of them")
    s, t = (x.flatten(1) if x.ndim > 2 else x for x in (student, teacher))
    if gram == "normalised":
        with full_precision(s.device):
            s, t = (unit_rows(product(f, f)) for f in (factor(promote(s)), factor(promote(t))))
    return 1.0 - kernel.between(t, s)


class RCKA(Method):
    """RCKA, LCKA or FCKA; terms `rcka.intra`, `rcka.inter` and `rcka.<student tap>` per pair of features.

    Args:
        pairs: student tap → teacher tap, for the feature term.
        intra, inter: weights of the logit terms; None or 0 is off.
        feature: weight of the feature term of each pair; None or 0 is off.
        scale, feature_scale: row scaling of the kernels of logits and of features (see `alignment`).
        center, estimator: of all kernels; official is uncentred, biased.
        gram: of the features, see `rcka_feature_loss`.
        soften: align softmax(logits / `temperature`): None, `"intra"` (official: only there) or `"both"`.
        ramp: shares of the run between which the logit terms fade in linearly; None is at once.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="Z. Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, IJCAI 2024, 2401.11824",
        tasks="classification, segmentation",
        needs="logits; pairs of taps for the feature term, of any width; batches of 2 or more",
    )

    def __init__(
        self, pairs: Mapping[str, str] | None = None, intra: float | None = 15.0, inter: float | None = 15.0,
        feature: float | None = 1.0, scale: str | None = "rows", feature_scale: str | None = None,
        center: bool = False, estimator: str = "biased", gram: str = "plain", soften: str | None = None,
        temperature: float = 4.0, ramp: tuple[float, float] | None = (0.3, 0.7), task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if soften not in (None, "intra", "both") or not temperature > 0:
            raise UserError(f"soften is None, 'intra' or 'both' at a temperature > 0, got {soften!r} at {temperature}")
        if ramp is not None and not 0 <= ramp[0] <= ramp[1] <= 1:
            raise UserError(f"ramp is (start, stop) with 0 <= start <= stop <= 1, got {ramp}; None is no ramp")
        self.pairs, self.intra, self.inter, self.feature = dict(pairs or {}), intra, inter, feature
        self.scale, self.feature_scale, self.center, self.estimator = scale, feature_scale, center, estimator
        self.gram, self.soften, self.temperature, self.ramp = gram, soften, temperature, ramp
        self.task_weight = task_weight
        self.student_taps = tuple(self.pairs) if feature else ()
        self.teacher_taps = tuple(self.pairs.values()) if feature else ()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Try every term once, before training."""
        check_finite(example)
        self(example)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        terms = {}
        if self.intra or self.inter:
            fade = fade_in(step.progress, self.ramp)
            logits = joined(step.student.logits), joined(step.teacher.logits)
            terms = {f"rcka.{name}": fade * term for name, term in self._logit_terms(*logits).items()}
        kernel = Kernel(self.center, self.feature_scale, self.estimator)
        for mine, theirs in zip(self.student_taps, self.teacher_taps, strict=True):
            features = joined(step.student.tap(mine)), joined(step.teacher.tap(theirs))
            terms[f"rcka.{mine}"] = (self.feature or 0.0) * rcka_feature_loss(*features, kernel, self.gram)
        return terms

    def _logit_terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        kernel = Kernel(self.center, self.scale, self.estimator)
        if self.soften is None:
            return rcka_loss(student, teacher, self.intra, self.inter, kernel)
        s, t = ((promote(logits) / self.temperature).softmax(1) for logits in (student, teacher))
        if self.soften == "both":
            return rcka_loss(s, t, self.intra, self.inter, kernel)
        return rcka_loss(s, t, self.intra, None, kernel) | rcka_loss(student, teacher, None, self.inter, kernel)
