"""FPD, fast pose distillation: the student's heat maps follow those of a larger network.

Source: F. Zhang, X. Zhu, M. Ye, "Fast Human Pose Estimation", CVPR 2019, arXiv 1811.05419,
equations 4 to 6.

    L = task_weight · Σ_o L_mse(o, g) + weight · Σ_o L_mse(o, t)
    L_mse(o, t) = ½ mean over images, joints, pixels of (w (o - t))²

o: the heat maps of every stack of the student; t: the last ones of the teacher; g: targets; w: 1
for labeled joints. The paper's α is `weight`, and 1 - α is `task_weight`; both are 0.5 there.

Differs from the paper: its squared errors are sums over pixels, ours means as in OKDHP, so that all
pose losses have one scale. Joints without a label do not count, although a teacher could label
them.

Cost: the teacher's forward pass. The teacher may be a cache.
"""

from __future__ import annotations

from torch import Tensor

from tutelage.core import Around, Method, MethodInfo, Step
from tutelage.core.heatmaps import heatmap_mse, heatmaps_of, joint_weights
from tutelage.methods._checks import check_weights


def fpd_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return ½ mean (w (o - t))², summed over the student's stacks.

    >>> import torch
    >>> fpd_loss(torch.ones(2, 4, 3, 8, 8), torch.zeros(2, 3, 8, 8)).item()
    2.0

    Args:
        student: o, (N, K, h, w) or (N, S, K, h, w).
        teacher: t, (N, K, h, w).
        weight: w, (N, K) or (N, K, 1); None weighs all joints alike.

    Returns:
        A scalar, float32 for half precision.

    Raises:
        UserError: If shapes do not fit, or a weight is negative or NaN.
    """
    return heatmap_mse(student, teacher, weight)


class FPD(Method):
    """Squared error between the heat maps of student and teacher; the term is `fpd`.

    >>> FPD().extra_repr()
    'weight=0.5, task_weight=0.5'

    Args:
        weight: factor of the term.
        task_weight: factor of the supervised loss.
    """

    info = MethodInfo(
        paper="F. Zhang et al., Fast Human Pose Estimation, CVPR 2019, arXiv 1811.05419",
        tasks="pose",
        needs="a teacher with the same joints and the same stride; it may be cached",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(self, *, weight: float = 0.5, task_weight: float = 0.5) -> None:
        super().__init__()
        check_weights("FPD", weight, task_weight)
        self.weight = weight
        self.task_weight = task_weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term."""
        student = heatmaps_of(step.student.output)
        teacher = heatmaps_of(step.teacher.output)[:, -1]
        return {"fpd": self.weight * fpd_loss(student, teacher, joint_weights(step.batch))}
