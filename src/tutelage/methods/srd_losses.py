"""The losses of SRD on logits out of the teacher's classifier, and on the features before it.

Source and formula: see `srd.py`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tutelage.core.batch import IGNORED
from tutelage.errors import UserError
from tutelage.methods.connector import pooled
from tutelage.methods.kd import kd_loss
from tutelage.methods.mimic import mimic_loss
from tutelage.similarity.gram import full_precision, promote, unit_rows

DISTANCES = ("mse", "kl", "ce", "dist")


def srd_loss(
    crossed: Tensor, teacher: Tensor, distance: str = "mse", temperature: float = 4.0, labels: Tensor | None = None
) -> Tensor:
    """Return how far logits (N, K) of the student's features in the teacher's classifier are from the teacher's.

    >>> import torch
    >>> srd_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        crossed, teacher: ẑ and z_t, any floating dtype.
        distance: "mse" (official); "kl": T² KL(z_t ‖ ẑ); "dist": 1 - Pearson's correlation over an image's classes plus
            the same over a class's images; "ce": cross-entropy of ẑ with the labels.
        temperature, labels: T of "kl"; (N,) for "ce", where -100 is left out.

    Returns a scalar, float32 for half precision and inside autocast. Raises UserError where the arguments do not fit.
    """
    if distance not in DISTANCES or (distance == "ce" and labels is None):
        raise UserError(f"SRD has a distance in {DISTANCES}, and 'ce' needs labels; got {distance!r}, labels {labels}")
    if crossed.shape != teacher.shape or crossed.ndim != 2:
        raise UserError(f"SRD needs logits (N, K) of one shape, got {tuple(crossed.shape)} and {tuple(teacher.shape)}")
    with full_precision(crossed.device):
        z, told = promote(crossed), promote(teacher)
        if distance == "ce" and labels is not None:
            total = F.cross_entropy(z, labels, ignore_index=IGNORED, reduction="sum")
            return total / (labels != IGNORED).sum().clamp(min=1)
        if distance == "dist":
            a, b, c, d = (unit_rows(x - x.mean(1, keepdim=True)) for x in (z, told, z.mT, told.mT))
            return 2.0 - (a * b).sum(1).mean() - (c * d).sum(1).mean()
        return kd_loss(z, told, temperature) if distance == "kl" else mimic_loss(z, told)


def srd_feature_loss(student: Tensor, teacher: Tensor, maps: bool = False) -> Tensor:
    """Return the mean squared difference of pooled features (N, C) or (N, C, H, W); UserError where N or C differ.

    With `maps`, of whole maps; larger ones are averaged to the size of smaller ones.
    """
    x, told = promote(student), promote(teacher)
    if maps and not x.ndim == told.ndim == 4:
        raise UserError(f"SRD's maps are (N, C, H, W), got {tuple(x.shape)} and {tuple(told.shape)}; set maps to False")
    if not maps:
        return mimic_loss(pooled(x), pooled(told))
    size = min(x.shape[-2], told.shape[-2]), min(x.shape[-1], told.shape[-1])
    return mimic_loss(F.adaptive_avg_pool2d(x, size), F.adaptive_avg_pool2d(told, size))
