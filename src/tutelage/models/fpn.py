"""Backbones with a feature pyramid for torchvision's detectors.

The network below the pyramid is a ResNet of torchvision or any network of timm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from tutelage.errors import NotInstalledError, UserError, near_misses

ExtraLevels = Literal["p6p7", "pool"]
LEVELS = (2, 3, 4, 5)


def fpn_backbone(
    name: str,
    width: int = 256,
    levels: Sequence[int] = (3, 4, 5),
    extra: ExtraLevels | None = "p6p7",
    *,
    weights: str | None = None,
    frozen: bool = False,
) -> nn.Module:
    """Return a backbone that gives a dict of maps.

    The maps are named "0", "1", … from fine to coarse; extra levels follow.

    >>> backbone = fpn_backbone("resnet18", width=64)
    >>> backbone.out_channels
    64

    Args:
        name: a ResNet of torchvision (`resnet18`, `resnext101_64x4d`, …), or any network of timm
            that gives pyramid features.
        width: channels of every map.
        levels: the maps to use, some of 2 to 5; level k has the stride 2^k.
        extra: coarser levels computed from the coarsest map: `"p6p7"` (RetinaNet, FCOS), `"pool"`
            (Faster R-CNN), or None.
        weights: name of torchvision's ImageNet weights, such as `IMAGENET1K_V1`. For a network of
            timm any value stands for timm's own pretrained weights.
        frozen: whether batch norm, stem and first stage of a torchvision ResNet stay fixed, as is
            usual with pretrained weights. A network of timm is trained as a whole.

    Raises:
        UserError: If `levels` or `extra` is unknown, no network has this name, or timm is not
            installed.
    """
    _check_levels(levels, extra)
    # Built before the network: initial weights depend on the order of random numbers.
    extra_block = _extra_block(extra, width)
    resnets = _torchvision_resnets()
    if name in resnets:
        return _resnet_pyramid(
            name,
            width=width,
            levels=sorted(levels),
            extra_block=extra_block,
            weights=weights,
            frozen=frozen,
        )
    try:
        import timm
    except ImportError as error:
        what = f"there is no ResNet {name!r}{near_misses(name, resnets)}; any other network"
        raise NotInstalledError(what, "timm") from error
    timm_models = timm.list_models()
    if name not in timm_models:
        known = dict.fromkeys([*resnets, *timm_models])  # some names are in both
        raise UserError(f"there is no network {name!r}{near_misses(name, known)}")
    body = timm.create_model(
        name,
        pretrained=weights is not None,
        features_only=True,
        out_indices=[level - 1 for level in sorted(levels)],
    )
    return TimmPyramid(body, body.feature_info.channels(), width, extra_block)


class TimmPyramid(nn.Module):
    """A network of timm with a feature pyramid on its maps.

    Args:
        body: gives a list of maps, from fine to coarse.
        channels: channels of each map.
        width: channels of the pyramid's maps.
        extra_block: torchvision's block for further levels.

    Attributes:
        out_channels: the width, under the name that torchvision's detectors read.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: Sequence[int],
        width: int,
        extra_block: nn.Module,
    ) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.body = body
        self.out_channels = width
        self.fpn = FeaturePyramidNetwork(list(channels), width, extra_block)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by name."""
        features = OrderedDict(
            (str(index), feature) for index, feature in enumerate(self.body(images))
        )
        maps: dict[str, Tensor] = self.fpn(features)
        return maps


def _check_levels(levels: Sequence[int], extra: str | None) -> None:
    """Raise for levels that no backbone has, and for an unknown kind of extra levels."""
    choices = (*get_args(ExtraLevels), None)
    if extra not in choices:
        raise UserError(f"extra must be one of {choices}, got {extra!r}")
    if not levels or not set(levels) <= set(LEVELS):
        raise UserError(f"levels must be one or more of {LEVELS}, got {list(levels)}")


def _torchvision_resnets() -> list[str]:
    """Return the names of torchvision's ResNets for classification."""
    from torchvision import models

    families = ["resnet*", "resnext*", "wide_resnet*"]
    names: list[str] = models.list_models(module=models, include=families)
    return names


def _extra_block(extra: ExtraLevels | None, width: int) -> nn.Module:
    """Return torchvision's block that adds levels to a pyramid of this width."""
    from torchvision.ops.feature_pyramid_network import (
        ExtraFPNBlock,
        LastLevelMaxPool,
        LastLevelP6P7,
    )

    class NoExtraLevels(ExtraFPNBlock):  # type: ignore[misc]
        """Add no level; `BackboneWithFPN` would take None for a max pooling."""

        def forward(self, results: Any, features: Any, names: Any) -> Any:
            return results, names

    block: nn.Module
    if extra == "p6p7":
        block = LastLevelP6P7(width, width)
    elif extra == "pool":
        block = LastLevelMaxPool()
    else:
        block = NoExtraLevels()
    return block


def _resnet_pyramid(
    name: str,
    *,
    width: int,
    levels: Sequence[int],
    extra_block: nn.Module,
    weights: str | None,
    frozen: bool,
) -> nn.Module:
    """Return a ResNet of torchvision with a pyramid; `levels` go from fine to coarse."""
    from torchvision.models import get_model
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.misc import FrozenBatchNorm2d

    norm_layer = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
    body = get_model(name, weights=weights, norm_layer=norm_layer)
    if frozen:
        body.conv1.requires_grad_(False)
        body.layer1.requires_grad_(False)
    # Level k is the output of layer k - 1. `inplanes` are the channels of level 5, and each level
    # below has half of the next.
    map_names = {f"layer{level - 1}": str(index) for index, level in enumerate(levels)}
    channels = [body.inplanes // 2 ** (5 - level) for level in levels]
    pyramid: nn.Module = BackboneWithFPN(body, map_names, channels, width, extra_block)
    return pyramid
