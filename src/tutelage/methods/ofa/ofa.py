"""OFA-KD, one-for-all: unlike architectures are compared by logits, at every stage of the student.

Source: Z. Hao, J. Guo, K. Han, Y. Tang, H. Hu, Y. Wang, C. Xu, "One-for-All: Bridge the Gap Between
Heterogeneous Architectures in Knowledge Distillation", NeurIPS 2023, arXiv 2310.19444; official
code Hao840/OFAKD@f7bb896 `distillers/ofa.py`. The formula is that of the code; nothing is copied,
because it has no license.

    w = (p + m)^γ - m,   p = softmax(z_t / T),   m = one-hot of the label
    ℓ(z; γ) = mean over items of -Σ_c w_c log q_c,   q = softmax(z / T)
    L = CE(z_s, y) + weight · ℓ(z_s; γ_last) + branch_weight · Σ_stages ℓ(b_k(f_k); γ_k)

An exit branch b_k turns the student's feature f_k into logits (`branches.py`). γ > 1 gives the
label more weight the more confident the teacher is, and changes the size of the loss; γ = 1 has the
gradient of plain KD. There is no factor T². Symbols → arguments: γ (the code's eps) `gamma`,
T `temperature`, λ_gt `task_weight`, λ_kd `weight`, λ_ofa `branch_weight`.

Differs from the official code:
- Uses log-softmax, expm1 and log1p. There, log(softmax) is infinite from a logit gap of 104, and
  its gradient NaN from 90.
- Stages are tapped layers and branches are built from the shapes of one real batch: any model,
  image size, grid and number of prefix tokens. There, a table of patched models at 224², which
  fails on class tokens under the timm that it pins.
- `width` is an argument; there, the teacher's width can decide it.
- Items with the label -100 are left out; there, they are an error.

Cost: the branches, while the student trains (see the page). The teacher only gives logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Around, Method, Step, Teacher
from tutelage.core.batch import IGNORE_INDEX
from tutelage.core.distributed import mean_over_ranks
from tutelage.core.method import MethodInfo
from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.methods._checks import (
    check_choice,
    check_labels,
    check_logits,
    check_positive,
    check_weights,
)
from tutelage.methods.ofa.branches import exit_branch
from tutelage.methods.ofa.layout import LAST_STAGE, Layout, feature_layouts
from tutelage.similarity._checks import as_same_dtype, check_tensors


def ofa_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Return the mean over items of -Σ_c w_c log softmax(student / T)_c.

    >>> student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 1000.0]])
    >>> labels = torch.tensor([1])
    >>> [round(ofa_loss(student, teacher, labels, gamma=gamma).item(), 4) for gamma in (1.0, 2.0)]
    [0.6931, 2.0794]

    Args:
        student: logits (N, C) of the student or of a branch, any floating dtype.
        teacher: logits (N, C) of the teacher; they get no gradient.
        labels: classes (N,) of int64, where -100 leaves an item out, or probabilities (N, C), of
            which the first maximum counts.
        gamma: γ, positive.
        temperature: T, positive.

    Returns:
        A scalar, float32 for half precision and inside autocast; 0 without a label.

    Raises:
        UserError: If shapes or labels do not fit, or if `gamma` or `temperature` is not positive.
            The values of labels are checked on the CPU only, where it costs nothing.
    """
    _check_inputs(student, teacher, labels)
    check_positive("the gamma of OFA", gamma)
    check_positive("the temperature of OFA", temperature)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher)
        target = labels if labels.ndim == 1 else labels.argmax(1)
        student_log_probs = F.log_softmax(student / temperature, 1)
        with torch.no_grad():
            teacher_log_probs = F.log_softmax(teacher / temperature, 1)
            classes = torch.arange(student.shape[1], device=student.device)
            is_label = target.unsqueeze(1) == classes
            # (1 + p)^γ - 1 at the label and p^γ elsewhere, without cancellation or underflow.
            label_weights = torch.expm1(gamma * teacher_log_probs.exp().log1p())
            other_weights = torch.exp(gamma * teacher_log_probs)
            weights = torch.where(is_label, label_weights, other_weights)
        losses = -(weights * student_log_probs).sum(1)
        # Masked instead of indexed: no tensor whose size an accelerator would have to wait for.
        has_label = target != IGNORE_INDEX
        return mean_over_ranks(losses.masked_fill(~has_label, 0.0).sum(), has_label.sum())


class OFA(Method):
    """OFA-KD; its terms are `ofa` of the student's own logits and `ofa/<layer>` of every branch.

    Args:
        stages: student layer → number of its stage, 1 to 4, where 4 is the last; None is without
            branches.
        gamma: γ of all losses, or one per stage and at the end one for the student's own logits.
        temperature: T.
        weight: factor of the term `ofa`.
        branch_weight: factor of every branch's term.
        width: channels of the branches; None is the student's widest stage. The official width for
            CNN students is the wider one of student and teacher.
        layout: "NCHW" or "NHWC" of features with four dimensions, where the shape does not tell.
        prefix_tokens: number of class and register tokens before the patch tokens.
        grid: (H, W) of the patch tokens; None is a square.
        task_weight: factor of the supervised loss.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="Z. Hao et al., One-for-All: Bridge the Gap Between Heterogeneous Architectures in "
        "KD, NeurIPS 2023, arXiv 2310.19444",
        tasks="classification",
        needs="labels, logits of one shape, taps at the student's stages; a cached teacher works",
        trains="an exit branch per stage",
    )
    search_space = (
        Around("weight", 10.0),
        Around("branch_weight", 10.0),
        Around("temperature", 4.0),
    )

    def __init__(
        self,
        stages: Mapping[str, int] | None = None,
        *,
        gamma: float | Sequence[float] = 1.0,
        temperature: float = 1.0,
        weight: float = 1.0,
        branch_weight: float = 1.0,
        width: int | None = None,
        layout: Layout | None = None,
        prefix_tokens: int = 0,
        grid: tuple[int, int] | None = None,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("OFA", weight, branch_weight, task_weight)
        _check_stages(stages)
        _check_width(width)
        check_choice("layout", layout, Layout | None)
        if not isinstance(prefix_tokens, int) or prefix_tokens < 0:
            raise UserError(
                f"prefix_tokens counts the tokens before the patch tokens; got {prefix_tokens!r}"
            )
        _check_grid(grid)
        self.stages = dict(stages or {})
        self.gamma = gamma
        self.temperature = temperature
        self.weight = weight
        self.branch_weight = branch_weight
        self.width = width
        self.layout: Layout | None = layout
        self.prefix_tokens = prefix_tokens
        self.grid = grid
        self.task_weight = task_weight
        check_positive("the temperature of OFA", temperature)
        for value in self._gammas():
            check_positive("the gamma of OFA", value)
        self.student_layers = tuple(self.stages)
        self.branches = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the branches from the shapes of one batch."""
        features = {layer: example.student.feature(layer) for layer in self.stages}
        layouts = feature_layouts(
            features,
            layout=self.layout,
            prefix_tokens=self.prefix_tokens,
            grid=self.grid,
        )
        width = self.width
        if width is None:
            width = max((layout.channels for layout in layouts.values()), default=0)
        num_classes = example.student.logits.shape[1]
        branches = []
        for layer, stage in self.stages.items():
            branches.append(exit_branch(layouts[layer], stage, width, num_classes))
        self.branches = nn.ModuleList(branches)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the student's own logits, then one per branch."""
        if len(self.branches) != len(self.stages):
            raise UserError(
                "the exit branches are not built yet; call distiller.setup(batch) before the "
                "first step"
            )
        teacher_logits = step.teacher.logits
        labels = step.batch.labels
        *branch_gammas, last_gamma = self._gammas()
        loss = ofa_loss(
            step.student.logits,
            teacher_logits,
            labels,
            gamma=last_gamma,
            temperature=self.temperature,
        )
        terms = {"ofa": self.weight * loss}
        for layer, branch, gamma in zip(self.stages, self.branches, branch_gammas, strict=True):
            loss = ofa_loss(
                branch(step.student.feature(layer)),
                teacher_logits,
                labels,
                gamma=gamma,
                temperature=self.temperature,
            )
            terms[f"ofa/{layer}"] = self.branch_weight * loss
        return terms

    def _gammas(self) -> list[float]:
        """Return γ of every branch, then of the student's own logits."""
        count = len(self.stages) + 1
        gammas = list(self.gamma) if isinstance(self.gamma, Sequence) else [self.gamma]
        if len(gammas) == 1:
            gammas = gammas * count
        if len(gammas) != count:
            raise UserError(
                f"OFA takes one gamma, or {count}: one a stage and one for the logits; "
                f"got {len(gammas)}"
            )
        return gammas


def _check_inputs(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    check_logits("OFA", student, teacher, maps=False)
    check_tensors("OFA (labels)", labels)
    if labels.shape not in (student.shape[:1], student.shape):
        raise UserError(
            f"OFA needs labels (N,) or (N, C) for logits {tuple(student.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.ndim == 1:
        check_labels("OFA", labels, student)
    elif not labels.is_floating_point():
        raise UserError(f"OFA needs labels (N, C) of probabilities, got {labels.dtype}; use (N,)")


def _check_stages(stages: object) -> None:
    message = (
        f"OFA numbers the student's stages from 1 to {LAST_STAGE}, its last, by layer; got {stages}"
    )
    if stages is None:
        return
    if not isinstance(stages, Mapping):
        raise UserError(message)
    for layer, number in stages.items():
        if not isinstance(layer, str):
            raise UserError(f"OFA names the layers of its stages by text, got {layer!r}")
        if isinstance(number, bool) or not isinstance(number, int):
            raise UserError(message)
        if not 1 <= number <= LAST_STAGE:
            raise UserError(message)


def _check_grid(grid: object) -> None:
    if grid is None:
        return
    is_pair = isinstance(grid, (list, tuple)) and len(grid) == 2
    if not is_pair or not all(isinstance(side, int) and side > 0 for side in grid):  # type: ignore[attr-defined]
        raise UserError(f"grid is (height, width) of the patch tokens, or None; got {grid!r}")


def _check_width(width: object) -> None:
    if width is None:
        return
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise UserError(
            f"the width of OFA's branches is a number of channels, or None; got {width!r}"
        )
