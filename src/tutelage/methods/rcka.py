"""RCKA, relation-centred kernel alignment: the student arranges the items of a batch as the teacher does.

Source: Z. Zhou et al., "Rethinking Centered Kernel Alignment in Knowledge Distillation", IJCAI 2024, arXiv
2401.11824; official code Klayand/PCKA@cec05de `cka_loss.py`, Klayand/Distill_Knowledge@5312bdf `CKA.py`, `CKASP.py`.

    L = CE + ramp · [intra · (1 - A(s, t)) + inter · (1 - A(sᵀ, tᵀ))] + feature · Σ_stages (1 - A(f_s, f_t))

s, t: logits (N, C), whose transposes relate the classes; f: flattened feature maps of any width; A: `alignment`.
Paper → arguments: β_intra `intra`, β_inter `inter`, α `feature`; code → arguments: `with_l2_norm` `scale="rows"`.
LCKA is RCKA without pairs, FCKA is RCKA with `intra=None, inter=None`.

Differs from the official code:
- w (1 - A), at best 0, for -w A: same gradient. `inter` is a weight of its own; there any value but 0 adds the
  term times the *intra* weight.
- The logit terms fade in over `ramp`. Acting from the first step, blind as they are to rotations of the logits,
  they drown the labels, unless the run has hundreds of epochs. `ramp=None` is official.
- `gram="plain"`, as in the paper's figure; `"normalised"` (official) aligns the Grams' unit rows instead and has
  almost no signal on non-negative features: independent ReLU features already agree to 0.99999.
- float32 outside autocast; zero rows and constant features are safe; the teacher stays in eval mode.

A high uncentred A (default, official) proves little after a ReLU: judge by a debiased CKA. Cost of both logit terms,
(64, 1000): about 1 ms on one core, where the official form takes about 90 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import both_logits, check_finite, fade_in
from tutelage.similarity import Kernel
from tutelage.similarity.gram import factor, full_precision, product, promote, unit_rows

ROWS, PLAIN = Kernel(scale="rows"), Kernel()


def rcka_logits(
    student: Tensor, teacher: Tensor, intra: float | None = 15.0, inter: float | None = 15.0, kernel: Kernel = ROWS
) -> dict[str, Tensor]:
    """Return the scalars `intra` · (1 - A(s, t)) and `inter` · (1 - A(sᵀ, tᵀ)) by name; a weight of None or 0 is off.

    >>> terms = rcka_logits(torch.eye(4), 3 * torch.eye(4), inter=None)
    >>> {name: round(term.item(), 4) for name, term in terms.items()}
    {'intra': 0.0}

    Args: logits (N, C) of both, flattened to that if they have more dimensions; the inter term needs the same C.

    Raises:
        UserError: shapes or dtypes do not fit, or N is too small (see `alignment`).
    """
    s, t = (x.flatten(1) if x.ndim > 2 else x for x in (student, teacher))
    if inter and s.shape != t.shape:
        raise UserError(
            f"RCKA's inter term needs the same classes on both sides, got logits {tuple(s.shape)} from the student "
            f"and {tuple(t.shape)} from the teacher; switch it off with inter=None"
        )
    if intra and inter:
        one, two = kernel.pair(t, s)
        return {"intra": _loss(one, intra), "inter": _loss(two, inter)}
    terms = {"intra": _loss(kernel.between(t, s), intra)} if intra else {}
    return {"inter": _loss(kernel.between(t.mT, s.mT), inter)} if inter else terms


def rcka_features(student: Tensor, teacher: Tensor, kernel: Kernel = PLAIN, gram: str = "plain") -> Tensor:
    """Return 1 - A of two feature maps (N, ...) of the same items, flattened; `gram` "plain" or "normalised".

    >>> rcka_features(torch.eye(4), torch.eye(4).view(4, 2, 2)).item()
    0.0

    Raises:
        UserError: `gram` is unknown, or the inputs do not fit (see `alignment`).
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
        center, estimator: centring of all kernels; official is uncentred, biased.
        gram: "plain", or "normalised" for the official feature term.
        soften: align softmax(logits / temperature): None, "intra" (official: only there) or "both".
        ramp: shares of the run over which the logit terms fade in linearly; None is at once.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="Z. Zhou et al., Rethinking Centered Kernel Alignment in Knowledge Distillation, IJCAI 2024, 2401.11824",
        tasks="classification",
        needs="logits; pairs of taps for the feature term, of any width; batches of 2 or more",
    )

    def __init__(
        self,
        pairs: Mapping[str, str] | None = None,
        intra: float | None = 15.0,
        inter: float | None = 15.0,
        feature: float | None = 1.0,
        scale: str | None = "rows",
        feature_scale: str | None = None,
        center: bool = False,
        estimator: str = "biased",
        gram: str = "plain",
        soften: str | None = None,
        temperature: float = 4.0,
        ramp: tuple[float, float] | None = (0.3, 0.7),
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if soften not in (None, "intra", "both") or not temperature > 0:
            raise UserError(f"soften is None, 'intra' or 'both' with a temperature > 0, got {soften!r}, {temperature}")
        if ramp is not None and not 0 <= ramp[0] <= ramp[1] <= 1:
            raise UserError(f"ramp is (start, stop) with 0 <= start <= stop <= 1, got {ramp}; None is no ramp")
        self.pairs, self.intra, self.inter, self.feature = dict(pairs or {}), intra, inter, feature
        self.scale, self.feature_scale, self.center, self.estimator = scale, feature_scale, center, estimator
        self.gram, self.soften, self.temperature, self.ramp = gram, soften, temperature, ramp
        self.task_weight = task_weight
        self.student_taps = tuple(self.pairs) if feature else ()
        self.teacher_taps = tuple(self.pairs.values()) if feature else ()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Look at the values and the shapes once, before training."""
        ...
