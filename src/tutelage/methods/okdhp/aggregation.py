"""The feature aggregation unit: how much each branch counts for a joint of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.methods._checks import check_choice

Variant = Literal["code", "figure"]

KERNELS = (3, 5, 7)


def ensemble_of(maps: Sequence[Tensor], attention: Tensor) -> Tensor:
    """Return the ensemble m_k = Σ_t A_tk · o_tk.

    >>> two = [torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)]
    >>> ensemble_of(two, torch.full((1, 2, 3), 0.5)).mean().item()
    0.5

    Args:
        maps: o_t, the last maps (N, K, h, w) of each branch.
        attention: A (N, T, K), which sums to 1 over the branches.

    Raises:
        UserError: If there is one branch only, or maps and attention differ in shape.
    """
    shapes = {tuple(branch.shape) for branch in maps}
    if len(maps) < 2:
        raise UserError(
            f"online distillation needs at least two branches, got {len(maps)}; set branches to 2 "
            "or more"
        )
    if len(shapes) > 1:
        raise UserError(
            f"the branches give maps of the shapes {sorted(shapes)}; let all have the same joints "
            "and the same size"
        )
    (shape,) = shapes
    expected = (shape[0], len(maps), shape[1]) if len(shape) == 4 else None
    if tuple(attention.shape) != expected:
        raise UserError(
            f"the ensemble of {len(maps)} branches with maps {shape} needs maps (N, K, h, w) and "
            f"attention (N, T, K), got {tuple(attention.shape)}; give one weight a branch and joint"
        )
    total = attention[:, 0, :, None, None] * maps[0]
    for index in range(1, len(maps)):
        total = total + attention[:, index, :, None, None] * maps[index]
    return total


class FeatureAggregation(nn.Module):
    """Attention over branches from features that all of them share.

    In the variant `"code"`, that of the official code,

        U = Σ_k ReLU(BN(conv_k(x))),  k = 3, 5, 7
        v = Linear(mean over pixels of U),   A = softmax over t of Linear_t(v)

    In `"figure"`, drawn in the paper, a 1×1 convolution follows each conv_k, the three are
    concatenated instead of added, and the mean over pixels of a 1×1 convolution of the averaged
    features joins them. Its activations and widths are not published.

    >>> unit = FeatureAggregation(8, num_branches=3, num_joints=5, squeeze=4)
    >>> unit(torch.randn(2, 8, 6, 6)).sum(1).detach().round(decimals=4)[0]
    tensor([1., 1., 1., 1., 1.])

    Args:
        channels: C of the features (N, C, h, w).
        num_branches: T.
        num_joints: K.
        squeeze: width of v.
        variant: see above.

    Raises:
        UserError: If the variant is unknown.
    """

    def __init__(
        self,
        channels: int,
        num_branches: int,
        num_joints: int,
        squeeze: int,
        variant: Variant = "code",
    ) -> None:
        super().__init__()
        check_choice("variant", variant, Variant)
        self.variant = variant
        self.num_joints = num_joints
        self.convolutions = nn.ModuleList(_convolution(channels, size) for size in KERNELS)
        pooled_width = channels
        self.pointwise = nn.ModuleList()
        self.average: nn.Module | None = None
        if variant == "figure":
            self.pointwise.extend(nn.Conv2d(channels, channels, 1) for _ in KERNELS)
            self.average = nn.Conv2d(channels, channels, 1)
            pooled_width = (len(KERNELS) + 1) * channels
        self.squeeze = nn.Linear(pooled_width, squeeze)
        # T heads of K outputs in one matrix.
        self.heads = nn.Linear(squeeze, num_branches * num_joints)

    def forward(self, features: Tensor) -> Tensor:
        """Return the attention (N, T, K)."""
        vector = self.squeeze(self._pooled(features))
        scores = self.heads(vector).unflatten(1, (-1, self.num_joints))
        return torch.softmax(scores.float() if scores.dtype != torch.float64 else scores, 1)

    def _pooled(self, features: Tensor) -> Tensor:
        """Return what is known of an image, (N, C) or (N, 4C)."""
        paths = [convolution(features) for convolution in self.convolutions]
        if self.average is None:
            return torch.stack(paths).sum(0).mean((-2, -1))
        pooled = [
            pointwise(path).mean((-2, -1))
            for pointwise, path in zip(self.pointwise, paths, strict=True)
        ]
        pooled.append(self.average(F.adaptive_avg_pool2d(features, 1)).flatten(1))
        return torch.cat(pooled, 1)


def _convolution(channels: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, size, padding=size // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
