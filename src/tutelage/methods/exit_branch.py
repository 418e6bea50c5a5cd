"""Exit branches: small trainable networks that turn a student's feature of any stage into class logits.

Source: OFA-KD, Z. Hao et al., NeurIPS 2023, arXiv 2310.19444; official code Hao840/OFAKD@f7bb896 `distillers/ofa.py`
(`OFA.__init__`) and `distillers/utils.py` (`SepConv`), written anew from its description.

A map (N, C, H, W) gets convolutions, tokens (N, L, D) and channels-last maps (N, H, W, D) a `TokenBranch`. The official
table of patched models is replaced by the shapes of one real batch, see `readings.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.methods.readings import STAGES, Reading
from tutelage.methods.token_branch import TokenBranch
from tutelage.models.blocks import conv_bn


class MapBranch(nn.Sequential):
    """Class logits from a map (N, C, H, W).

    4 - stage blocks halve the map and double its channels, the last one to `width`; stage 4 is one 1×1 convolution
    instead. Then pooling and a linear classifier.

    >>> import torch
    >>> MapBranch(inputs=16, width=40, num_classes=5, stage=3)(torch.zeros(2, 16, 9, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, inputs: int, width: int, num_classes: int, stage: int) -> None:
        blocks: list[nn.Module] = [nn.Conv2d(inputs, width, 1)] if stage == STAGES else []
        for number in range(stage, STAGES):
            outputs = width if number == STAGES - 1 else 2 * inputs
            blocks.append(nn.Sequential(*_separable(inputs, inputs, 2), *_separable(inputs, outputs, 1)))
            inputs = outputs
        head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, num_classes)}
        super().__init__(OrderedDict({"blocks": nn.Sequential(*blocks), **head}))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        n, _, height, width = x.shape
        try:
            for module in self:
                x = module(x)
        except ValueError as error:  # batch norm's own: it needs more than one value per channel
            raise UserError(
                f"an exit branch cannot train on a batch of {n} whose map of {height} × {width} shrinks to one value "
                "a channel; use a larger batch"
            ) from error
        return x


def exit_branch(reading: Reading, stage: int, width: int, num_classes: int) -> nn.Module:
    """Return an untrained branch for features that are read so; `stage` is 1 to 4, where 4 is the student's last.

    >>> [type(exit_branch(r, 2, 8, 5)).__name__ for r in (Reading(4), Reading(4, (14, 14), 1))]
    ['MapBranch', 'TokenBranch']
    """
    branch: nn.Module
    if reading.grid is None:
        branch = MapBranch(reading.channels, width, num_classes, stage)
    else:
        branch = TokenBranch(reading.grid, reading.prefix, reading.channels, width, num_classes, stage)
    return branch.apply(_initial)


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return [depthwise, *conv_bn(inputs, outputs, 1), nn.ReLU()]


def _initial(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)
