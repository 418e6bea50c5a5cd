"""The BPR loss, and the regularization of the rows that a batch reads.

S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from
Implicit Feedback", UAI 2009, arXiv 1205.2618.

    BPR = mean over the batch of −log σ(s_u,pos − s_u,neg)
    reg = ½ (‖e_u‖² + ‖e_pos‖² + ‖e_neg‖²) / batch     over the rows of the tables that it reads
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tutelage.core.precision import full_precision, promote


def bpr_loss(differences: Tensor) -> Tensor:
    """Return the mean of −log σ over differences s_u,pos − s_u,neg.

    >>> import torch
    >>> round(bpr_loss(torch.zeros(3)).item(), 6)
    0.693147

    Args:
        differences: of any shape.
    """
    with full_precision(differences.device):
        return F.softplus(-promote(differences)).mean()


def row_norms(*rows: Tensor) -> Tensor:
    """Return half the sum of the squared norms of rows, divided by the number of rows of each.

    >>> import torch
    >>> row_norms(torch.ones(2, 3), torch.ones(2, 3)).item()
    3.0

    Args:
        rows: (N, d) each.
    """
    with full_precision(rows[0].device):
        return sum(promote(row).square().sum() for row in rows) / (2 * len(rows[0]))  # type: ignore[return-value]
