"""DIST, distillation from a stronger teacher: probabilities need only be correlated with the teacher's, not equal.

Source: T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022,
arXiv 2205.10536, section 4; official code hunto/image_classification_sota@6f7a70a `lib/models/losses/dist_kd.py`,
`configs/strategies/distill/dist_cifar.yaml` (its home page is hunto/DIST_KD@2418f18).

    L = CE(z_s, y) + T² · (beta · inter + gamma · intra),    p = softmax(z / T), (N, C)
    inter = 1 - mean over items   of ρ(p_s[i, :], p_t[i, :])      how the classes of one item relate
    intra = 1 - mean over classes of ρ(p_s[:, j], p_t[:, j])      how the items relate in one class
    ρ(u, v) = <u', v'> / (‖u'‖ ‖v'‖ + ε),    u' = u - mean(u)      Pearson's correlation

Symbols → arguments: β `beta`, γ `gamma`, τ `temperature`, ε `eps`. Official: β = γ = 2 (the code's `kd_loss_weight`
2 times 1 and 1) with T = 4 on CIFAR-100 and T = 1 on ImageNet; T² stands in the official classification code.

Differs from the official code:
- A row or column that is constant up to rounding (a classifier that starts at zero) has ρ = 0 with zero gradient. There
  its gradient is v' / ε, up to 10⁶ in the logits of small batches; just beside it ours is steep too, so clip.
- Several processes relate the items of the whole batch within each class, not of each one's share.
- With two classes ρ of an item is 1 or -1, without gradient: `inter` is left out. float32 outside autocast.

ε is the official one: it quiets classes whose probability hardly moves in the batch, ‖u'‖ ‖v'‖ near 1e-8, as happens
at T = 1 with many classes. Batches of one or two leave `intra` without gradient; accumulation does not enlarge them.
Cost: two softmaxes and four centred norms of (N, C). The teacher may be a cache.
"""

from __future__ import annotations

from torch import Tensor

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_any, check_finite, check_floating, check_positive
from tutelage.similarity.gather import joined
from tutelage.similarity.gram import centred, dot, full_precision, norm, promote


def dist_loss(
    student: Tensor, teacher: Tensor, beta: float | None = 2.0, gamma: float | None = 2.0,
    temperature: float = 4.0, eps: float = 1e-8,
) -> dict[str, Tensor]:  # fmt: skip
    """Return `beta` · T² · (1 - ρ of the items' rows) and `gamma` · T² · (1 - ρ of the classes' columns) by name.

    >>> import torch
    >>> sure, less = torch.tensor([[0.0, 0.0, 4.0], [4.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 3.0], [3.0, 1.0, 1.0]])
    >>> {name: round(term.item(), 4) for name, term in dist_loss(sure, less, gamma=None).items()}  # same ranks
    {'inter': 0.0}

    Args:
        student, teacher: logits (N, C, ...), any floating dtype; positions of maps are further items.
        beta, gamma: weights of the two terms; None or 0 is off.
        temperature, eps: T and ε, both > 0.

    Returns:
        Scalars, float32 for half precision and inside autocast.

    Raises:
        UserError: shapes differ or have fewer than two classes, the batch is empty, a dtype is not floating, or T or
            ε is not positive.
    """
    check_positive("the temperature of DIST", temperature)
    check_positive("the eps of DIST", eps)
    _check(student, teacher)
    with full_precision(student.device):
        p_s, p_t = ((_rows(promote(z)) / temperature).softmax(1) for z in (student, teacher))
        terms = {}
        if beta and student.shape[1] > 2:
            terms["inter"] = beta * temperature**2 * (1.0 - _correlation(p_s, p_t, eps))
        if gamma:
            terms["intra"] = gamma * temperature**2 * (1.0 - _correlation(p_s.mT, p_t.mT, eps))
        return terms


class DIST(Method):
    """Correlated probabilities; terms `dist.inter` and `dist.intra`.

    >>> DIST(temperature=1.0).extra_repr()
    'beta=2.0, gamma=2.0, temperature=1.0, eps=1e-08, task_weight=1.0'

    Args:
        beta: weight of the relations between the classes of an item; None or 0 is off.
        gamma: weight of the relations between the items in a class, over the batch of all processes; None or 0 is off.
        temperature: T of all probabilities.
        eps: ε of the correlation.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="T. Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv 2205.10536",
        tasks="classification, segmentation",
        needs="logits of the same shape from both networks; batches of several items; the teacher may be cached",
    )

    def __init__(
        self, beta: float | None = 2.0, gamma: float | None = 2.0, temperature: float = 4.0, eps: float = 1e-8,
        task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_positive("the temperature of DIST", temperature)
        check_positive("the eps of DIST", eps)
        self.beta, self.gamma, self.temperature, self.eps = beta, gamma, temperature, eps
        self.task_weight = task_weight

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Try both terms once, before training."""
        check_finite(example)
        check_any("DIST", self(example))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        logits = joined(step.student.logits), joined(step.teacher.logits)
        terms = dist_loss(*logits, self.beta, self.gamma, self.temperature, self.eps)
        return {f"dist.{name}": term for name, term in terms.items()}


def _rows(z: Tensor) -> Tensor:
    return z if z.ndim == 2 else z.movedim(1, -1).flatten(0, -2)


def _correlation(x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return Pearson's correlation of the rows (R, P), averaged."""
    a, b = (_deviation(rows.unsqueeze(-1)) for rows in (x, y))
    return (dot(a, b) / (norm(a) * norm(b) + eps)).mean()


def _deviation(rows: Tensor) -> Tensor:
    """Return rows (R, P, 1) minus their means; 0, without gradient, where only rounding is left."""
    data, unit = centred(rows)
    return data.masked_fill(unit <= 0, 0.0)


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim < 2 or not student.numel() or student.shape[1] < 2:
        raise UserError(
            f"DIST needs logits (N, C, ...) of one shape with two classes or more, got {tuple(student.shape)} from "
            f"the student and {tuple(teacher.shape)} from the teacher; give both the same batch, the same number "
            "of classes and maps of one size"
        )
    check_floating("DIST needs floating-point logits", student, teacher)
