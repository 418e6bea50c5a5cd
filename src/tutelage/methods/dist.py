"""DIST: the student's probabilities need only be correlated with the teacher's, not equal to them.

Source: T. Huang, S. You, F. Wang, C. Qian, C. Xu, "Knowledge Distillation from A Stronger Teacher",
NeurIPS 2022, arXiv 2205.10536, section 4; official code hunto/image_classification_sota@6f7a70a
`lib/models/losses/dist_kd.py`, `configs/strategies/distill/dist_cifar.yaml` (its home page is
hunto/DIST_KD@2418f18).

    L = CE(z_s, y) + T² · (beta · inter + gamma · intra),    p = softmax(z / T), (N, C)
    inter = 1 - mean over items   of ρ(p_s[i, :], p_t[i, :])      how the classes of an item relate
    intra = 1 - mean over classes of ρ(p_s[:, j], p_t[:, j])      how the items relate in a class
    ρ(u, v) = <u', v'> / (‖u'‖ ‖v'‖ + ε),    u' = u - mean(u)      Pearson's correlation

Symbols → arguments: β `beta`, γ `gamma`, τ `temperature`, ε `eps`. Official: β = γ = 2 (the code's
`kd_loss_weight` 2 times 1 and 1) with T = 4 on CIFAR-100 and T = 1 on ImageNet; the factor T² is
that of the official classification code.

Differs from the official code:
- A row or column that is constant up to rounding (a classifier that starts at zero) has ρ = 0 with
  zero gradient. The official gradient there is v' / ε, up to 10⁶ in the logits of small batches.
  Close to such a point ours is steep too, so clip gradients.
- Several processes relate the items of the whole batch within each class, not of their own share.
- With two classes ρ of an item is 1 or -1, without gradient: `inter` is left out.
- The loss is computed in float32, outside autocast.

ε has the official value. It quiets classes whose probability hardly moves in the batch, ‖u'‖ ‖v'‖
near 1e-8, as happens at T = 1 with many classes. Batches of one or two items leave `intra` without
gradient; gradient accumulation does not enlarge them.

Cost: two softmaxes and four centered norms of (N, C). The teacher may be a cache.
"""

from __future__ import annotations

from torch import Tensor

from tutelage.core.distributed import all_gather_with_grad
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
from tutelage.core.search_space import Around, Between
from tutelage.methods._checks import check_logits, check_positive, check_weights
from tutelage.methods._correlation import mean_correlation
from tutelage.methods._divergence import HIGH, softened
from tutelage.methods._probabilities import about_their_constants
from tutelage.similarity._checks import as_same_dtype


def dist_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float | None = 2.0,
    gamma: float | None = 2.0,
    temperature: float = 4.0,
    eps: float = 1e-8,
) -> dict[str, Tensor]:
    """Return beta · T² · inter and gamma · T² · intra: one minus the mean correlation, weighted.

    >>> import torch
    >>> sharp = torch.tensor([[0.0, 0.0, 4.0], [4.0, 0.0, 0.0]])
    >>> soft = torch.tensor([[1.0, 1.0, 3.0], [3.0, 1.0, 1.0]])
    >>> {name: round(term.item(), 4) for name, term in dist_loss(sharp, soft, gamma=None).items()}
    {'inter': 0.0}

    Args:
        student: logits (N, C, ...) of any floating dtype; positions of maps are further items.
        teacher: logits of the same shape.
        beta: weight of the inter-class relation, between the classes of an item; None or 0 is off.
        gamma: weight of the intra-class relation, between items in a class; None or 0 is off.
        temperature: T > 0.
        eps: ε > 0 of the correlation.

    Returns:
        The scalars `inter` and `intra` that have a weight, float32 for half-precision logits and
        inside autocast.

    Raises:
        UserError: If shapes differ or have fewer than two classes, the batch is empty, a dtype is
            not floating, or T or ε is not positive.
    """
    check_positive("the temperature of DIST", temperature)
    check_positive("the eps of DIST", eps)
    check_weights("DIST", beta, gamma, optional=True)
    check_logits("DIST", student, teacher, min_classes=2)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher)
        precise = temperature > HIGH
        student_probs = _probabilities(student, temperature, precise)
        teacher_probs = _probabilities(teacher, temperature, precise)
        terms = {}
        if beta and student.shape[1] > 2:
            correlation = mean_correlation(student_probs, teacher_probs, eps)
            terms["inter"] = beta * temperature**2 * (1.0 - correlation)
        if gamma:
            student_probs = about_their_constants(student_probs)
            teacher_probs = about_their_constants(teacher_probs)
            correlation = mean_correlation(student_probs.mT, teacher_probs.mT, eps)
            terms["intra"] = gamma * temperature**2 * (1.0 - correlation)
        return {name: term.to(student.dtype) for name, term in terms.items()}


class DIST(Method):
    """Correlated probabilities; terms `dist/inter` and `dist/intra`.

    >>> DIST(temperature=1.0)
    DIST(beta=2.0, gamma=2.0, temperature=1.0, eps=1e-08, task_weight=1.0)

    Args:
        beta: weight of the relations between the classes of an item; None or 0 is off.
        gamma: weight of the relations between the items in a class, over the batch of all
            processes; None or 0 is off.
        temperature: T of all probabilities.
        eps: ε of the correlation.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If the temperature or ε is not positive.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="T. Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, "
        "arXiv 2205.10536",
        tasks="classification, segmentation",
        needs="logits of the same shape from both networks; batches of several items; "
        "the teacher may be cached",
    )
    search_space = (Around("beta", 10.0), Around("gamma", 10.0), Between("temperature", 1.0, 8.0))

    def __init__(
        self,
        *,
        beta: float | None = 2.0,
        gamma: float | None = 2.0,
        temperature: float = 4.0,
        eps: float = 1e-8,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("DIST", beta, gamma, optional=True)
        check_weights("DIST", task_weight)
        check_positive("the temperature of DIST", temperature)
        check_positive("the eps of DIST", eps)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.eps = eps
        self.task_weight = task_weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        terms = dist_loss(
            all_gather_with_grad(step.student.logits),
            all_gather_with_grad(step.teacher.logits),
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
            eps=self.eps,
        )
        return {f"dist/{name}": term for name, term in terms.items()}


def _probabilities(logits: Tensor, temperature: float, precise: bool) -> Tensor:
    """Return softmax(logits / T) of (N, C, ...) as one row for every item and position."""
    if logits.ndim == 2:
        return softened(logits, temperature, precise).softmax(1)
    # A softmax over few classes takes a tenth of the time where the positions are side by side.
    positions = logits.movedim(1, 0).flatten(1)
    return softened(positions, temperature, precise).softmax(0).mT
