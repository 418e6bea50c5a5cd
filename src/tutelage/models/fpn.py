"""Backbones with a feature pyramid, for torchvision's detectors: any ResNet of torchvision, anything of timm."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.errors import UserError, near_misses

EXTRAS = ("p6p7", "pool", None)


def fpn_backbone(
    name: str,
    width: int = 256,
    levels: Sequence[int] = (3, 4, 5),
    extra: str | None = "p6p7",
    weights: str | None = None,
    frozen: bool = False,
) -> nn.Module:
    """Return a backbone whose output is a dict of maps: "0", "1", … from fine to coarse, and the extra levels.

    >>> backbone = fpn_backbone("resnet18", width=64)
    >>> backbone.out_channels
    64

    Args:
        name: a ResNet of torchvision (`resnet18`, `resnext101_64x4d`, …), or any network of timm with pyramid features.
        width: channels of every map.
        levels: which maps: level k has the stride 2^k.
        extra: coarser levels made of the coarsest: `"p6p7"` (RetinaNet, FCOS), `"pool"` (Faster R-CNN), or none.
        weights: name of torchvision's ImageNet weights, such as `IMAGENET1K_V1`, or for timm any value: its own.
        frozen: fixed batch norm, stem and first stage, as is usual with pretrained weights.

    Raises:
        UserError: there is no such network, or timm is not installed.
    """
    from torchvision.models import resnet
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
    from torchvision.ops.misc import FrozenBatchNorm2d

    if extra not in EXTRAS or not levels or not set(levels) <= {2, 3, 4, 5}:
        raise UserError(f"extra is one of {EXTRAS} and levels are out of 2 to 5, got {extra!r} and {list(levels)}")
    block = {"p6p7": lambda: LastLevelP6P7(width, width), "pool": LastLevelMaxPool, None: _no_more}[extra]()
    known = [n for n in vars(resnet) if n.startswith(("resn", "wide_resn"))]
    if name in known:
        body = vars(resnet)[name](weights=weights, norm_layer=FrozenBatchNorm2d if frozen else nn.BatchNorm2d)
        for part in (body.conv1, body.layer1) if frozen else ():
            part.requires_grad_(False)
        names = {f"layer{level - 1}": str(place) for place, level in enumerate(sorted(levels))}
        channels = [body.inplanes // 2 ** (5 - level) for level in sorted(levels)]
        pyramid: nn.Module = BackboneWithFPN(body, names, channels, width, block)
        return pyramid
    try:
        import timm
    except ImportError:
        raise UserError(f"there is no ResNet {name!r}{near_misses(name, known)}; other networks need timm") from None
    if name not in timm.list_models():
        raise UserError(f"there is no network {name!r}{near_misses(name, [*known, *timm.list_models()])}")
    indices = [level - 1 for level in sorted(levels)]
    body = timm.create_model(name, pretrained=weights is not None, features_only=True, out_indices=indices)
    return TimmPyramid(body, body.feature_info.channels(), width, block)


def _no_more() -> nn.Module:
    """Return an extra block that adds no level; without one, torchvision adds "pool"."""
    from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

    class NoMore(ExtraFPNBlock):  # type: ignore[misc]
        def forward(self, results: Any, features: Any, names: Any) -> Any:
            return results, names

    return NoMore()


class TimmPyramid(nn.Module):
    """A network of timm that gives maps, and a feature pyramid on them.

    Args:
        body: gives a list of maps, from fine to coarse.
        channels: of each map.
        width: of the pyramid.
        extra: torchvision's block for further levels.

    Attributes:
        out_channels: the width, where torchvision's detectors look for it.
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], width: int, extra: nn.Module) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.body, self.out_channels = body, width
        self.fpn = FeaturePyramidNetwork(list(channels), width, extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return maps by name."""
        maps = self.body(images)
        found: dict[str, Tensor] = self.fpn(OrderedDict((str(place), value) for place, value in enumerate(maps)))
        return found
