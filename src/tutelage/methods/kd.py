"""Knowledge distillation: the student learns the teacher's softened class probabilities.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531,
section 2.

    L = task_weight · CE(z_s, y) + weight · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

summed over classes, averaged over the batch. The factor T² keeps the gradient's size independent of T; it
stands at every weight, so the loss is continuous in `weight`. Hard labels instead: weight · CE(z_s, argmax z_t).

Cost: two log-softmaxes of the logits, less than 0.1 % of a training step. The teacher may be a cache.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_finite, check_floating, check_positive
from tutelage.similarity.gram import full_precision, promote


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over the batch.

    Built on log-softmax, so logit gaps of 1000 are safe.

    >>> import torch
    >>> student = torch.tensor([[0.0, 0.0]])
    >>> round(kd_loss(student, torch.tensor([[0.0, 1000.0]]), temperature=1.0).item(), 4)
    0.6931

    Args:
        student: logits (N, C, ...), any floating dtype; further dimensions are positions, averaged like the batch.
        teacher: logits of the same shape.
        temperature: T > 0.

    Returns:
        A scalar, float32 for half-precision logits and inside autocast.

    Raises:
        UserError: shapes differ or have fewer than two dimensions, the batch is empty, a dtype is not floating, or
            T is not positive.
    """
    _check(student, teacher)
    check_positive("the temperature of KD", temperature)
    with full_precision(student.device):
        log_p = F.log_softmax(promote(student) / temperature, dim=1)
        log_q = F.log_softmax(promote(teacher) / temperature, dim=1)
        total = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
        return total * (temperature**2 * student.shape[1] / student.numel())


def kd_hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy with the teacher's most likely class, averaged over the batch.

    >>> import torch
    >>> round(kd_hard_loss(torch.zeros(1, 2), torch.tensor([[0.0, 3.0]])).item(), 4)
    0.6931

    Args:
        student: logits (N, C, ...), any floating dtype.
        teacher: logits of the same shape.

    Returns:
        A scalar, float32 for half-precision logits and inside autocast.

    Raises:
        UserError: as `kd_loss`.
    """
    _check(student, teacher)
    with full_precision(student.device):
        return F.cross_entropy(promote(student), teacher.argmax(dim=1))


class KD(Method):
    """Hinton's knowledge distillation; one term, `kd`.

    >>> KD(temperature=2.0).extra_repr()
    'temperature=2.0, weight=0.9, task_weight=0.1, hard=False'

    Args:
        temperature: T of both softmaxes; has no effect with `hard`.
        weight: factor of the distillation term.
        task_weight: factor of the supervised loss; 0 trains without labels.
        hard: learn the teacher's most likely class instead of its probabilities.
    """

    card = Card(
        paper="G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531",
        tasks="classification, segmentation",
        needs="logits of the same shape from both networks; the teacher may be cached",
    )

    def __init__(
        self, temperature: float = 4.0, weight: float = 0.9, task_weight: float = 0.1, hard: bool = False
    ) -> None:
        super().__init__()
        check_positive("the temperature of KD", temperature)
        self.temperature = temperature
        self.weight = weight
        self.task_weight = task_weight
        self.hard = hard

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Look at both networks' logits once, before training."""
        check_finite(example)
        self(example)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `kd`."""
        student, teacher = step.student.logits, step.teacher.logits
        loss = kd_hard_loss(student, teacher) if self.hard else kd_loss(student, teacher, self.temperature)
        return {"kd": self.weight * loss}


def _check(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim < 2 or not student.numel():
        raise UserError(
            f"KD needs logits (N, C, ...) of one shape, got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher; give both the same batch, the same number of "
            "classes and maps of one size"
        )
    check_floating("KD needs floating-point logits", student, teacher)
