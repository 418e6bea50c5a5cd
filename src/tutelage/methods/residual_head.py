"""Adapters and classifier of residual distillation: features of several members, joined at the teacher's width.

    f_m = P_m F_m (a 1×1 convolution with bias),  f̂ = Σ_m f_m,  logits = W pool(f̂) + b

All of it is linear, and commutes with the pooling: member m's part of the logits is W P_m on its pooled features z_m,
with bias W b_m, and b for the student. That is how they are computed, so that folding them changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.similarity.gram import full_precision, promote


class Joint(nn.Module):
    """The head in training: pooled features (N, C) of the members → logits.

    >>> head = Joint([[nn.Linear(4, 8), nn.Linear(2, 8)]], nn.Linear(8, 3))
    >>> head([torch.ones(5, 4), torch.ones(5, 2)]).shape, head.linear(1)
    (torch.Size([5, 3]), Linear(in_features=2, out_features=3, bias=True))

    Args:
        adapters: per pair of taps one linear layer per member, to the teacher's width; those of the last pair feed the
            classifier, the others are there for their losses.
        classifier: teacher's width → classes.
    """

    def __init__(self, adapters: Sequence[Sequence[nn.Linear]], classifier: nn.Linear) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(nn.ModuleList(row) for row in adapters)
        self.classifier = classifier

    def rest(self, student: bool, assistants: bool) -> None:
        """Freeze adapters that no loss reaches, of other pairs than the last: DDP waits for gradients of all others.

        Args:
            student, assistants: whether their features are compared with the teacher's.
        """
        for row in self.adapters[:-1]:
            for member, adapter in enumerate(row.children()):
                adapter.requires_grad_(assistants if member else student)

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the logits of all members together."""
        return torch.stack([self.logits(member, z) for member, z in enumerate(vectors)]).sum(0)

    def logits(self, member: int, z: Tensor) -> Tensor:
        """Return one member's part of the logits; the student's (member 0) stand alone."""
        return F.linear(z, *self._folded(member))

    def classify(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return the logits with the joined feature fixed: only the classifier is trained."""
        joined = torch.stack([_project(z, adapter) for z, adapter in zip(vectors, self._row(-1), strict=True)]).sum(0)
        logits: Tensor = self.classifier(joined.detach())
        return logits

    def linear(self, member: int) -> nn.Linear:
        """Return a classifier of one member's own, that gives its part of the logits."""
        weight, bias = (x.detach().clone() for x in self._folded(member))
        made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
        return made

    def features(self, raw: Sequence[Tensor], pair: int = -1) -> list[Tensor]:
        """Return f of every member for one pair of taps, from maps (N, C, H, W) or vectors (N, C), in float32."""
        with full_precision(raw[0].device):
            return [_project(promote(x), adapter) for x, adapter in zip(raw, self._row(pair), strict=True)]

    def _folded(self, member: int) -> tuple[Tensor, Tensor]:
        adapter, classifier = self._row(-1)[member], self.classifier
        with full_precision(classifier.weight.device):
            bias = F.linear(adapter.bias, classifier.weight, classifier.bias if member == 0 else None)
            return classifier.weight @ adapter.weight, bias

    def _row(self, pair: int) -> list[nn.Linear]:
        row = self.adapters[pair]
        assert isinstance(row, nn.ModuleList)
        return [adapter for adapter in row if isinstance(adapter, nn.Linear)]


def pooled(x: Tensor) -> Tensor:
    """Return the mean of a map (N, C, H, W) over its positions; a vector (N, C) as it is.

    >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 3)).shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    return x.mean((2, 3)) if x.ndim == 4 else x


def same_size(mine: list[Tensor], teacher: Tensor, resize: str | None) -> tuple[list[Tensor], Tensor]:
    """Return features of one map size: as they are, or the larger brought to the smaller size if asked for.

    Raises:
        UserError: the sizes differ and `resize` is None.
    """
    if all(x.shape[2:] == teacher.shape[2:] for x in mine):
        return mine, teacher
    shapes = ", ".join(str(tuple(x.shape)) for x in mine)
    if resize is None or any(x.ndim != 4 for x in (*mine, teacher)):
        raise UserError(
            f"the student and its assistants give {shapes}, the teacher {tuple(teacher.shape)}; pair maps of equal "
            "size, or maps of any size and set resize to 'bilinear'"
        )
    size = min((x.shape[2:] for x in (*mine, teacher)), key=lambda s: s[0] * s[1])
    resized = [x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear") for x in (*mine, teacher)]
    return resized[:-1], resized[-1]


def _project(x: Tensor, adapter: nn.Linear) -> Tensor:
    if x.ndim == 4:
        return F.conv2d(x, adapter.weight[:, :, None, None], adapter.bias)
    if x.ndim != 2:
        raise UserError(f"residual distillation needs maps (N, C, H, W) or vectors (N, C), got {tuple(x.shape)}")
    return F.linear(x, adapter.weight, adapter.bias)
