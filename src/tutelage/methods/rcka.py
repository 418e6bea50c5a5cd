"""RCKA, relation-centered kernel alignment: the student relates items as the teacher does.

Source: Z. Zhou et al., "Rethinking Centered Kernel Alignment in Knowledge Distillation", IJCAI
2024, arXiv 2401.11824; official code Klayand/PCKA@cec05de `cka_loss.py`,
Klayand/Distill_Knowledge@5312bdf `CKA.py`, `CKASP.py`.

    L = CE + ramp · [intra_weight · (1 - A(s, t)) + inter_weight · (1 - A(sᵀ, tᵀ))]
           + feature_weight · Σ_stages (1 - A(f_s, f_t))

s, t: logits (N, C), whose transposes relate the classes, or (N, C, H, W), flattened. f: features.
A: `tutelage.similarity.alignment`. Symbols of the paper → arguments: β_intra `intra_weight`,
β_inter `inter_weight`, α `feature_weight`; of the code: `with_l2_norm` is `scale="rows"`.
LCKA is RCKA without `layer_pairs`; FCKA is RCKA with `intra_weight=None, inter_weight=None`.

Differs from the official code:
- The terms are w (1 - A), at best 0, instead of -w A; the gradient is the same.
- `inter_weight` is a weight; there any value but 0 adds the inter term times the *intra* weight.
- The logit terms fade in over `ramp`; `ramp=None` is official. Alignment is blind to rotations of
  the logits, so from the first step on it drowns the labels unless the run has hundreds of epochs.
- `gram="plain"`, as in the paper's figure, is the default. `"normalized"` (official) aligns unit
  rows of the Gram matrices instead and has almost no signal on non-negative features: independent
  ReLU features already agree to 0.99999.
- `soften="intra"` is official; `"both"` at temperature 1 gained more in most of our studies.
- Several processes relate the items of the whole batch, not of their own share.
- The loss is computed in float32, outside autocast; zero rows and constant features are safe; the
  teacher stays in eval mode.

An uncentered A (the default, and official) is near 1 after any ReLU, so judge by a debiased CKA.
Cost: both logit terms at (64, 1000) take about 1 ms on one core; the official form about 90 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from torch import Tensor

from tutelage.core import Around, Method, MethodInfo, Step
from tutelage.core.distributed import all_gather_with_grad
from tutelage.core.precision import full_precision, promote
from tutelage.methods._checks import (
    check_choice,
    check_features,
    check_items,
    check_logits,
    check_positive,
    check_weights,
)
from tutelage.methods._layer_pairs import checked_pairs
from tutelage.methods._probabilities import Softened
from tutelage.methods._ramp import Ramp, check_ramp, fade_in
from tutelage.similarity._gram import factor, product, unit_rows
from tutelage.similarity.alignment import Estimator, Scale, alignment, alignment_pair

Gram = Literal["plain", "normalized"]
Soften = Literal["intra", "both"]


def rcka_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    intra_weight: float | None = 15.0,
    inter_weight: float | None = 15.0,
    scale: Scale | None = "rows",
    center: bool = False,
    estimator: Estimator = "biased",
    soften: Soften | None = None,
    temperature: float = 4.0,
) -> dict[str, Tensor]:
    """Return intra_weight · (1 - A(s, t)) and inter_weight · (1 - A(sᵀ, tᵀ)) of logits.

    >>> import torch
    >>> terms = rcka_loss(torch.eye(4), 3 * torch.eye(4), inter_weight=None)
    >>> {name: round(term.item(), 4) for name, term in terms.items()}
    {'intra': 0.0}

    Args:
        student: logits (N, C), or (N, C, ...), which are flattened to rows.
        teacher: logits of the same items; C may differ if the inter term is off.
        intra_weight: weight of the term between items; None or 0 is off.
        inter_weight: of the term between classes; None or 0 is off, as are two centered classes.
        scale: of the kernels, see `alignment`; `"rows"` is official.
        center: center the kernels; official is uncentered.
        estimator: of the alignment; official is biased.
        soften: which terms see softmax(logits / temperature); None is neither of them, `"intra"` is
            the official softening.
        temperature: of `soften`, > 0.

    Returns:
        The scalars `intra` and `inter` that have a weight, float32 for half-precision logits and
        inside autocast.

    Raises:
        UserError: If shapes, dtypes or options do not fit, or there are too few items or classes to
            relate (see `alignment`).
    """
    check_choice("soften", soften, Soften | None)
    check_positive("the temperature of RCKA", temperature)
    check_weights("RCKA", intra_weight, inter_weight, optional=True)
    check_items("RCKA", student, teacher)
    if soften is not None:
        check_logits("RCKA with soften", student, teacher)
    align = partial(alignment, center=center, scale=scale, estimator=estimator)
    align_both = partial(alignment_pair, center=center, scale=scale, estimator=estimator)
    inter_s, inter_t = _rows(student), _rows(teacher)
    intra_s, intra_t = inter_s, inter_t
    if soften is not None:
        debiased = estimator == "debiased"
        # Softened only once, so that uncentered kernels can share their products.
        soft_s, soft_t = Softened(student, temperature), Softened(teacher, temperature)
        if soften == "both":
            hollow = debiased and scale is None
            inter_s = _rows(soft_s.for_classes(hollow=hollow))
            inter_t = _rows(soft_t.for_classes(hollow=hollow))
        if center or debiased:
            intra_s = _rows(soft_s.for_items(scaled=scale is not None))
            intra_t = _rows(soft_t.for_items(scaled=scale is not None))
        elif soften == "both":
            intra_s, intra_t = inter_s, inter_t
        else:
            intra_s, intra_t = _rows(soft_s.for_classes()), _rows(soft_t.for_classes())
    if center and estimator == "biased" and inter_s.shape[1] == inter_t.shape[1] == 2:
        inter_weight = None  # whatever the logits are, these relations agree
    if intra_weight and inter_weight and intra_s is inter_s and intra_t is inter_t:
        # Of the same inputs both terms come from shared matrix products.
        intra, inter = align_both(intra_t, intra_s)
        return {"intra": intra_weight * (1.0 - intra), "inter": inter_weight * (1.0 - inter)}
    terms = {}
    if intra_weight:
        terms["intra"] = intra_weight * (1.0 - align(intra_t, intra_s))
    if inter_weight:
        terms["inter"] = inter_weight * (1.0 - align(inter_t.mT, inter_s.mT))
    return terms


def rcka_feature_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    center: bool = False,
    estimator: Estimator = "biased",
    gram: Gram = "plain",
) -> Tensor:
    """Return 1 - A of features of the same items, of any widths.

    >>> import torch
    >>> round(rcka_feature_loss(torch.eye(4), torch.eye(4).view(4, 2, 2)).item(), 4)
    0.0

    Args:
        student: features (N, ...), which are flattened to rows.
        teacher: features of the same items.
        center: center the kernels; official is uncentered.
        estimator: of the alignment; official is biased.
        gram: align the features (`"plain"`), or the unit rows of their Gram matrices
            (`"normalized"`, official).

    Returns:
        A scalar, float32 for half-precision features and inside autocast.

    Raises:
        UserError: If shapes, dtypes or options do not fit, or there are too few items to relate.
    """
    check_choice("gram", gram, Gram)
    check_features("RCKA", student, teacher)
    s, t = _rows(student), _rows(teacher)
    if gram == "normalized":
        with full_precision(s.device):
            s, t = _unit_gram(promote(s)), _unit_gram(promote(t))
    return 1.0 - alignment(t, s, center=center, estimator=estimator)


class RCKA(Method):
    """RCKA, LCKA or FCKA; terms `rcka/intra`, `rcka/inter`, and `rcka/<student layer>` per pair.

    >>> RCKA({"stage3": "layer3"}, center=True).student_layers
    ('stage3',)

    Args:
        layer_pairs: student layer → teacher layer, for the feature term.
        intra_weight: weight of the logit term between items; None or 0 is off.
        inter_weight: weight of the logit term between classes; None or 0 is off.
        feature_weight: weight of the feature term of each pair; None or 0 is off.
        scale: row scaling of the kernels of logits, see `alignment`; those of features have none.
        center: center all kernels; official is uncentered.
        estimator: of all alignments; official is biased.
        gram: of the feature term, see `rcka_feature_loss`.
        soften: which logit terms see softmax(logits / temperature), see `rcka_loss`.
        temperature: of `soften`.
        ramp: shares of the run between which the logit terms fade in linearly; None is at once.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If an option does not fit.
    """

    info = MethodInfo(
        paper="Z. Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, "
        "IJCAI 2024, arXiv 2401.11824",
        tasks="classification, segmentation",
        needs="logits; layer pairs for the feature term, of any widths; batches of 2 or more",
        caution="of logits, the default, it lost 1.7 points from a ViT (Fashion-MNIST) and, in the "
        "last epoch, 1.3 on CamVid; classifiers lost nothing with soften: both, temperature: 1",
    )
    search_space = (
        Around("intra_weight", 10.0),
        Around("inter_weight", 10.0),
        Around("feature_weight", 10.0),
    )

    def __init__(
        self,
        layer_pairs: Mapping[str, str] | None = None,
        *,
        intra_weight: float | None = 15.0,
        inter_weight: float | None = 15.0,
        feature_weight: float | None = 1.0,
        scale: Scale | None = "rows",
        center: bool = False,
        estimator: Estimator = "biased",
        gram: Gram = "plain",
        soften: Soften | None = None,
        temperature: float = 4.0,
        ramp: Ramp | None = (0.3, 0.7),
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("RCKA", intra_weight, inter_weight, feature_weight, optional=True)
        check_weights("RCKA", task_weight)
        check_choice("scale", scale, Scale | None)
        check_choice("estimator", estimator, Estimator)
        check_choice("gram", gram, Gram)
        check_choice("soften", soften, Soften | None)
        check_positive("the temperature of RCKA", temperature)
        check_ramp(ramp)
        self.layer_pairs = checked_pairs("RCKA", layer_pairs, optional=True)
        self.intra_weight = intra_weight
        self.inter_weight = inter_weight
        self.feature_weight = feature_weight
        self.scale = scale
        self.center = center
        self.estimator = estimator
        self.gram = gram
        self.soften = soften
        self.temperature = temperature
        self.ramp = ramp
        self.task_weight = task_weight
        self.needs_one_class = soften is not None  # which is a softmax over the classes
        if feature_weight:
            self.student_layers = tuple(self.layer_pairs)
            self.teacher_layers = tuple(self.layer_pairs.values())

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        return self._logit_terms(step) | self._feature_terms(step)

    def _logit_terms(self, step: Step) -> dict[str, Tensor]:
        if not (self.intra_weight or self.inter_weight):
            return {}
        terms = rcka_loss(
            all_gather_with_grad(step.student.logits),
            all_gather_with_grad(step.teacher.logits),
            intra_weight=self.intra_weight,
            inter_weight=self.inter_weight,
            scale=self.scale,
            center=self.center,
            estimator=self.estimator,
            soften=self.soften,
            temperature=self.temperature,
        )
        factor = fade_in(step.progress, self.ramp)
        return {f"rcka/{name}": factor * term for name, term in terms.items()}

    def _feature_terms(self, step: Step) -> dict[str, Tensor]:
        if not self.feature_weight:
            return {}
        terms = {}
        for student_layer, teacher_layer in self.layer_pairs.items():
            loss = rcka_feature_loss(
                all_gather_with_grad(step.student.feature(student_layer)),
                all_gather_with_grad(step.teacher.feature(teacher_layer)),
                center=self.center,
                estimator=self.estimator,
                gram=self.gram,
            )
            terms[f"rcka/{student_layer}"] = self.feature_weight * loss
        return terms


def _rows(x: Tensor) -> Tensor:
    return x.flatten(1) if x.ndim > 2 else x


def _unit_gram(features: Tensor) -> Tensor:
    """Return the Gram matrix of the rows, each of its own rows divided by its length."""
    scaled = factor(features)
    return unit_rows(product(scaled, scaled))
