"""Which boxes of a target are of one object, and not of a crowd."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def single_objects(target: Mapping[str, Tensor]) -> Tensor | None:
    """Return what selects the boxes of single objects; None if the target knows no crowds.

    Data sets of this package give their positions, `single` (n,) int64. A mask would make an
    accelerator count its entries first, and the step wait for that, once for every image.

    >>> import torch
    >>> single_objects({"iscrowd": torch.tensor([False, True])})
    tensor([ True, False])
    """
    if "single" in target:
        return target["single"]
    return ~target["iscrowd"].bool() if "iscrowd" in target else None
