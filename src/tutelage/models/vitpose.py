"""ViTPose of Hugging Face transformers (Y. Xu et al., NeurIPS 2022, arXiv 2204.12484).

As a stem, its backbone, and one stage, its head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tutelage.errors import NotInstalledError, UserError
from tutelage.models.pose_network import PoseNetwork


class VitPoseStem(nn.Module):
    """The backbone; patches become a map of features.

    Args:
        backbone: of `VitPoseForPoseEstimation`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        config: Any = backbone.config
        patch = config.patch_size
        size = config.image_size
        self.patch_size = tuple(patch) if not isinstance(patch, int) else (patch, patch)
        self.image_size = tuple(size) if not isinstance(size, int) else (size, size)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, C, h, w).

        Raises:
            UserError: If images have another size than the backbone's positions are for.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise UserError(
                f"this ViTPose takes images of {self.image_size}, got {tuple(images.shape[-2:])}; "
                "set data.size or the config's image_size"
            )
        tokens = self.backbone(images).feature_maps[-1]
        rows, columns = (
            side // patch for side, patch in zip(self.image_size, self.patch_size, strict=True)
        )
        features: Tensor = tokens.transpose(1, 2).reshape(len(images), -1, rows, columns)
        return features.contiguous()


class VitPoseStage(nn.Module):
    """The head.

    Args:
        head: of `VitPoseForPoseEstimation`.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the maps."""
        return features, self.head(features)


class VitPoseStages:
    """Makes heads of the same structure with new weights.

    Args:
        head: the pattern.
    """

    def __init__(self, head: nn.Module) -> None:
        self.head = copy.deepcopy(head)

    def __call__(self, count: int) -> list[nn.Module]:
        """Return a new head.

        Raises:
            UserError: For more than one, since heads do not follow each other.
        """
        if count != 1:
            raise UserError(
                f"ViTPose has one stage a branch, its head, not {count}; leave depths out, or take "
                "stacked_hourglass"
            )
        head = copy.deepcopy(self.head)
        for module in head.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        return [VitPoseStage(head)]


def vitpose(
    config: Mapping[str, Any] | None = None, *, pretrained: str | None = None
) -> PoseNetwork:
    """Return ViTPose with new weights from a config, or with those of a checkpoint.

    Args:
        config: arguments of `VitPoseConfig`; `backbone_config` may be a mapping, too.
        pretrained: a folder or name that `VitPoseForPoseEstimation.from_pretrained` knows.

    Raises:
        UserError: If transformers is not installed, or not exactly one of the two is given.
    """
    if (config is None) == (pretrained is None):
        raise UserError("vitpose takes a config or the name of pretrained weights; give one")
    try:
        from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation
    except ImportError as error:
        raise NotInstalledError("vitpose", "transformers") from error
    if pretrained is not None:
        network = VitPoseForPoseEstimation.from_pretrained(pretrained)
    else:
        assert config is not None
        settings = dict(config)
        backbone = settings.get("backbone_config")
        if isinstance(backbone, Mapping):
            settings["backbone_config"] = VitPoseBackboneConfig(**backbone)
        network = VitPoseForPoseEstimation(VitPoseConfig(**settings))
    return PoseNetwork(
        VitPoseStem(network.backbone),
        [VitPoseStage(network.head)],
        width=network.config.backbone_config.hidden_size,
        num_joints=network.config.num_labels,
        make_stages=VitPoseStages(network.head),
    )
