"""Knowledge distillation: the student learns the teacher's softened class probabilities.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
arXiv 1503.02531, section 2.

    L = task_weight · CE(z_s, y) + weight · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

summed over classes and averaged over the batch. Symbols → arguments: T `temperature`. The factor T²
keeps the size of the gradient independent of T. It stands at every weight, so the loss is
continuous in `weight`. With hard labels the second term is weight · CE(z_s, argmax z_t).

Cost: two log-softmaxes of the logits, less than 0.1 % of a training step. The teacher may be a
cache.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
from tutelage.core.search_space import Around, Between
from tutelage.methods._checks import check_logits, check_positive, check_weights
from tutelage.methods._divergence import HIGH, divergence_terms, softened, too_small
from tutelage.methods._logits import check_logits_layer, logits_of
from tutelage.similarity._checks import as_same_dtype


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Return T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over the batch.

    It is built on log-softmax, so logit gaps of 1000 are safe. Above T = 32, where the
    divergence shrinks as 1 / T², it is computed in float64, and so are small ones on a CPU.

    >>> import torch
    >>> student = torch.tensor([[0.0, 0.0]])
    >>> round(kd_loss(student, torch.tensor([[0.0, 1000.0]]), temperature=1.0).item(), 4)
    0.6931

    Args:
        student: logits (N, C, ...) of any floating dtype; further dimensions are positions, which
            are averaged like the batch.
        teacher: logits of the same shape.
        temperature: T > 0.

    Returns:
        A scalar, float32 for half-precision logits and inside autocast.

    Raises:
        UserError: If shapes differ or have fewer than two dimensions, the batch is empty, a dtype
            is not floating, or T is not positive.
    """
    check_logits("KD", student, teacher)
    check_positive("the temperature of KD", temperature)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher)
        precise = temperature > HIGH
        total = _total(student, teacher, temperature, precise)
        if not precise and too_small(total, student.numel() // student.shape[1]):
            total = _total(student, teacher, temperature, True)
        # The mean is over items and positions, of which there are numel / C.
        return (total * (temperature**2 * student.shape[1] / student.numel())).to(student.dtype)


def kd_hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy with the teacher's most likely class, averaged over the batch.

    >>> import torch
    >>> round(kd_hard_loss(torch.zeros(1, 2), torch.tensor([[0.0, 3.0]])).item(), 4)
    0.6931

    Args:
        student: logits (N, C, ...) of any floating dtype.
        teacher: logits of the same shape.

    Returns:
        A scalar, float32 for half-precision logits and inside autocast.

    Raises:
        UserError: If shapes or dtypes do not fit, as in `kd_loss`.
    """
    check_logits("KD", student, teacher)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher.detach())
        largest, classes = teacher.max(dim=1)
        # The class of a teacher that is NaN means nothing: the loss becomes NaN too.
        return F.cross_entropy(student, classes) + 0.0 * largest.sum()


class KD(Method):
    """Hinton's knowledge distillation; one term, `kd`.

    >>> KD(temperature=2.0)
    KD(temperature=2.0, weight=0.9, task_weight=0.1, hard=False, logits_layer=None)

    Args:
        temperature: T of both softmaxes; has no effect with `hard`.
        weight: factor of the distillation term.
        task_weight: factor of the supervised loss; 0 trains without labels.
        logits_layer: layer of both networks that gives the logits; None takes their outputs. With
            `roi_heads.box_predictor[0]` of a Faster R-CNN they are those of the student's
            proposals, the background first.
        hard: learn the teacher's most likely class instead of its probabilities.

    Raises:
        UserError: If the temperature is not positive.
    """

    needs_one_class = True
    info = MethodInfo(
        paper="G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015, "
        "arXiv 1503.02531",
        tasks="classification, segmentation, two-stage detection",
        needs="logits of the same shape from both networks; the teacher may be cached",
    )
    search_space = (Between("temperature", 1.0, 8.0), Around("weight", 10.0))

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        weight: float = 0.9,
        task_weight: float = 0.1,
        hard: bool = False,
        logits_layer: str | None = None,
    ) -> None:
        super().__init__()
        check_weights("KD", weight, task_weight)
        check_positive("the temperature of KD", temperature)
        self.temperature = temperature
        self.weight = weight
        self.task_weight = task_weight
        self.hard = hard
        self.logits_layer = logits_layer
        self.student_layers = check_logits_layer("KD", logits_layer)
        self.teacher_layers = self.student_layers

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `kd`."""
        student, teacher = logits_of(step, self.logits_layer)
        if self.hard:
            loss = kd_hard_loss(student, teacher)
        else:
            loss = kd_loss(student, teacher, temperature=self.temperature)
        return {"kd": self.weight * loss}


def _total(student: Tensor, teacher: Tensor, temperature: float, precise: bool) -> Tensor:
    """Return KL(teacher ‖ student), summed over items and positions."""
    student_log_probs = F.log_softmax(softened(student, temperature, precise), dim=1)
    teacher_log_probs = F.log_softmax(softened(teacher, temperature, precise), dim=1)
    if precise:
        return divergence_terms(student_log_probs, teacher_log_probs, precise).sum()
    return F.kl_div(student_log_probs, teacher_log_probs, reduction="sum", log_target=True)
