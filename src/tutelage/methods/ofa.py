"""OFA-KD, one for all: networks of unlike kinds meet in the space of logits, at every stage of the student.

Source: Z. Hao, J. Guo, K. Han, Y. Tang, H. Hu, Y. Wang, C. Xu, "One-for-All: Bridge the Gap Between Heterogeneous
Architectures in Knowledge Distillation", NeurIPS 2023, arXiv 2310.19444; official code Hao840/OFAKD@f7bb896
`distillers/ofa.py`. The formula is the code's; nothing is copied, it has no licence.

    w = (p + m)^γ - m,   p = softmax(z_t / T), m = one-hot of the label;   ℓ(z; γ) = mean over items of -Σ_c w_c log q_c
    L = CE(z_s, y) + weight · ℓ(z_s; γ_last) + branch_weight · Σ_stages ℓ(b_k(f_k); γ_k),   q = softmax(z / T)

An exit branch b_k turns the student's feature f_k into logits (`exit_branch`). γ > 1 raises the label's weight the
more, the surer the teacher is, and changes the size of the loss; γ = 1 has the gradient of plain KD. There is no factor
T². Symbols → arguments: γ (the code's eps) `gamma`, λ_gt `task_weight`, λ_kd `weight`, λ_ofa `branch_weight`.

Differs from the official code:
- Log-softmax, expm1 and log1p. There log(softmax): infinite from a logit gap of 104, NaN gradients from 90.
- Stages are taps, branches are built from the shapes of one real batch: any model, image size, grid, number of prefix
  tokens. There a table of patched models at 224², which fails on class tokens under the timm that it pins.
- `width` is an argument; there the teacher's can decide it. Items with the label -100 are left out; there an error.

Cost: the branches, while the student trains (see the page). Of the teacher only logits are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.batch import IGNORED, batch_labels
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.exit_branch import exit_branch
from tutelage.methods.parts import check_classes, check_finite, check_positive
from tutelage.methods.readings import check_settings, read_all
from tutelage.similarity.gram import full_precision, promote


def ofa_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, gamma: float = 1.0, temperature: float = 1.0, excess: bool = False
) -> Tensor:
    """Return the mean over items of -Σ_c w_c log softmax(student / T)_c.

    >>> given = torch.zeros(1, 2), torch.tensor([[0.0, 1000.0]]), torch.tensor([1])
    >>> [round(ofa_loss(*given, gamma=gamma).item(), 4) for gamma in (1.0, 2.0)]
    [0.6931, 2.0794]

    Args:
        student, teacher: logits (N, C), any floating dtype; no gradient goes to the teacher's.
        labels: classes (N,) of int64, where -100 leaves an item out, or probabilities (N, C): the first maximum counts.
        gamma, temperature: γ and T, positive.
        excess: take off the least value possible, W · H(w / W) with W = Σ_c w_c: the same gradient, and 0 at best.

    Returns a scalar, float32 for half precision and inside autocast; 0 without a label. Raises UserError where shapes,
    labels (looked at on the CPU only, where it is free), `gamma` or `temperature` do not fit.
    """
    _check(student, teacher, labels)
    check_positive("the gamma of OFA", gamma)
    check_positive("the temperature of OFA", temperature)
    with full_precision(student.device):
        target = labels if labels.ndim == 1 else labels.argmax(1)
        log_q = F.log_softmax(promote(student) / temperature, 1)
        with torch.no_grad():
            log_p = F.log_softmax(promote(teacher) / temperature, 1)
            label = target.unsqueeze(1) == torch.arange(log_p.shape[1], device=log_p.device)
            w = torch.where(label, torch.expm1(gamma * log_p.exp().log1p()), torch.exp(gamma * log_p))
            least = torch.special.entr(w).sum(1) - torch.special.entr(w.sum(1)) if excess else 0.0
        rows = -(w * log_q).sum(1) - least
        kept = target != IGNORED
        return rows.masked_fill(~kept, 0.0).sum() / kept.sum().clamp(min=1)


class OFA(Method):
    """OFA-KD; terms `ofa` of the student's own logits and `ofa.<stage>` of every branch.

    Args:
        stages: student tap → number of its stage, 1 to 4, where 4 is the last; None is without branches.
        gamma, temperature: γ of all losses, or one a stage and at the end one for the student's own logits; T.
        weight, branch_weight: factors of the term `ofa` and of every branch's.
        width: of the branches; None is the student's widest stage, a number the official width for a wider teacher.
        layout: "NCHW" or "NHWC", of stages with four dimensions where the shape does not tell.
        prefix_tokens, grid: class and register tokens before the patch tokens; (H, W) of those, None is a square.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="Z. Hao et al., One-for-All: Bridge the Gap Between Heterogeneous Architectures in KD, NeurIPS 2023",
        tasks="classification",
        needs="labels, logits of one shape, taps at the student's stages; the teacher may be cached",
        trains="an exit branch per stage",
    )

    def __init__(
        self, stages: Mapping[str, int] | None = None, gamma: float | Sequence[float] = 1.0, temperature: float = 1.0,
        weight: float = 1.0, branch_weight: float = 1.0, width: int | None = None, layout: str | None = None,
        prefix_tokens: int = 0, grid: tuple[int, int] | None = None, task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_settings(stages, width, layout, prefix_tokens)
        self.stages, self.gamma, self.temperature, self.weight = dict(stages or {}), gamma, temperature, weight
        self.branch_weight, self.width, self.layout, self.prefix_tokens = branch_weight, width, layout, prefix_tokens
        self.grid, self.task_weight = grid, task_weight
        for value in (*self._gammas(), temperature):
            check_positive("gamma and temperature of OFA", value)
        self.student_taps, self.branches = tuple(self.stages), nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the branches from the shapes of one batch, and try the loss once."""
        check_finite(example)
        logits, features = example.student.logits, {name: example.student.tap(name) for name in self.stages}
        read_as = read_all(features, self.layout, self.prefix_tokens, self.grid)
        width = self.width or max((reading.channels for reading in read_as.values()), default=0)
        made = [exit_branch(read_as[name], number, width, logits.shape[1]) for name, number in self.stages.items()]
        self.branches = nn.ModuleList(made)
        ofa_loss(logits, example.teacher.logits, batch_labels(example.batch))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term of the student's own logits, then one per branch."""
        told, labels = step.teacher.logits, batch_labels(step.batch)
        *gammas, last = self._gammas()
        if len(self.branches) != len(self.stages):
            raise UserError("the exit branches are not built yet; call distiller.setup(batch) before the first step")
        terms = {"ofa": self.weight * ofa_loss(step.student.logits, told, labels, last, self.temperature)}
        for name, branch, gamma in zip(self.stages, self.branches, gammas, strict=True):
            loss = ofa_loss(branch(step.student.tap(name)), told, labels, gamma, self.temperature)
            terms[f"ofa.{name}"] = self.branch_weight * loss
        return terms

    def _gammas(self) -> list[float]:
        count = len(self.stages) + 1
        given = list(self.gamma) if isinstance(self.gamma, Sequence) else [self.gamma]
        given = given * count if len(given) == 1 else given
        if len(given) != count:
            raise UserError(f"OFA takes one gamma, or {count}: one a stage and one for the logits; got {len(given)}")
        return given


def _check(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim != 2 or not student.numel() or not student.is_floating_point():
        raise UserError(
            f"OFA needs logits (N, C) of one shape, got {tuple(student.shape)} {student.dtype} from the student and "
            f"{tuple(teacher.shape)} from the teacher; give both the same batch and the same number of classes"
        )
    if labels.shape not in (student.shape[:1], student.shape):
        raise UserError(f"OFA needs labels (N,) or (N, C) for logits {tuple(student.shape)}, got {tuple(labels.shape)}")
    if labels.ndim == 1:
        check_classes(labels, student.shape[1])
