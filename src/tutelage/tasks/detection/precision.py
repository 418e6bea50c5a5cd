"""Boxes in float32 while a detector trains in half precision.

torchvision makes anchors in the type of the backbone's maps, and decodes boxes in the type of its
heads' outputs. Under autocast both are half precision, and in bfloat16 a coordinate between 256 and
512 is a multiple of 2 pixels: boxes move, and small ones become empty, which is an infinite target
for the box head. Only these outputs are promoted here; the layers run in half precision as before.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.precision import HALF

BOX_HEADS = ("head", "rpn.head", "roi_heads.box_predictor")  # torchvision's names


def keep_boxes_in_float32(detector: nn.Module, backbone: str = "backbone") -> None:
    """Promote what backbone and heads of a detector give under autocast to float32.

    Nothing changes outside autocast, nor in a network without modules of these names.

    Args:
        detector: of torchvision, or one with modules of the same names.
        backbone: name of the module whose maps the anchors follow.
    """
    modules = dict(detector.named_modules())
    for name in (backbone, *BOX_HEADS):
        module = modules.get(name)
        if module is not None and _promote not in module._forward_hooks.values():
            module.register_forward_hook(_promote)


def _promote(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    return _in_float32(output)


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        is_autocast = torch.is_autocast_enabled(value.device.type)
        return value.float() if is_autocast and value.dtype in HALF else value
    # Containers of other kinds, which are not torchvision's, may want other arguments.
    if type(value) in (dict, OrderedDict):
        return type(value)((name, _in_float32(entry)) for name, entry in value.items())
    if type(value) in (list, tuple):
        return type(value)(_in_float32(entry) for entry in value)
    return value
