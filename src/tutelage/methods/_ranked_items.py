"""What methods with a fixed list of items per user share: their fields in a batch, and checks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.errors import UserError


class RankedItems:
    """The same items of a user in every epoch, as fields of a batch.

    Args:
        name: of the method; the fields are `<name>_items`, `<name>_mask` and `<name>_targets`.
        items: (U, k) int, padded with −1.
        targets: (U, k) numbers of these items, such as the teacher's scores; None has none.
    """

    def __init__(self, name: str, items: Tensor, targets: Tensor | None = None) -> None:
        self.name = name
        self.items = items
        self.targets = targets

    def __call__(self, epoch: int, users: Tensor) -> Mapping[str, Tensor]:
        """Return the fields of a batch."""
        fields = item_fields(self.name, self.items[users])
        if self.targets is not None:
            fields[f"{self.name}_targets"] = self.targets[users]
        return fields


def item_fields(name: str, items: Tensor) -> dict[str, Tensor]:
    """Return the fields of items (N, k) that are padded with −1: the items, and a mask of them."""
    mask = items >= 0
    return {f"{name}_items": items.long().where(mask, 0), f"{name}_mask": mask}


def batch_items(name: str, batch: Batch, method: str) -> tuple[Tensor, Tensor]:
    """Return items (N, k) and their mask of a batch.

    Raises:
        UserError: If the batch has none.
    """
    if f"{name}_items" not in batch:
        raise UserError(
            f"the batch has no items of the teacher; train on the samples that "
            f"{method}.build_data(train, teacher) returns"
        )
    return batch[f"{name}_items"], batch[f"{name}_mask"]


def check_count(what: str, value: object) -> None:
    """Raise unless a value is a whole number from 1 on.

    >>> check_count("num_items of RD", 0)
    Traceback (most recent call last):
    tutelage.errors.UserError: num_items of RD is a whole number from 1 on, got 0
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{what} is a whole number from 1 on, got {value!r}")


def check_mu(what: str, value: object) -> None:
    """Raise unless μ, which says how far down a ranking is drawn from, can be drawn with.

    At a quarter 98 % of all draws are of the first rank, and less would hardly ever give a pair; at
    1e9 all ranks are alike, and much more is beyond single precision.

    >>> check_mu("mu of UnKD", 1e50)
    Traceback (most recent call last):
    tutelage.errors.UserError: mu of UnKD is a number from 0.25 to 1e9, got 1e+50
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.25 <= value <= 1e9:  # type: ignore[operator]
        raise UserError(f"{what} is a number from 0.25 to 1e9, got {value!r}")


def check_mask(method: str, mask: Tensor | None, scores: Tensor) -> None:
    """Raise unless a mask says of each score whether it is of an item.

    >>> import torch
    >>> check_mask("RD", torch.ones(4, dtype=torch.bool), torch.zeros(4, 3))
    Traceback (most recent call last):
    tutelage.errors.UserError: the mask of RD is bool of the scores' shape (4, 3), got bool (4,)
    """
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != scores.shape:
        got = type(mask).__name__
        if isinstance(mask, Tensor):
            got = f"{str(mask.dtype).removeprefix('torch.')} {tuple(mask.shape)}"
        raise UserError(
            f"the mask of {method} is bool of the scores' shape {tuple(scores.shape)}, got {got}"
        )


def check_scores(method: str, *scores: Tensor) -> None:
    """Raise unless all are floating-point tensors (N, k) that are not empty.

    >>> import torch
    >>> check_scores("RD", torch.zeros(4))
    Traceback (most recent call last):
    tutelage.errors.UserError: RD needs scores (N, k) of floating-point numbers, got (4,)
    """
    for values in scores:
        if not isinstance(values, Tensor) or values.ndim != 2 or not values.is_floating_point():
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UserError(f"{method} needs scores (N, k) of floating-point numbers, got {got}")
        if not values.numel():
            raise UserError(f"{method} has no items in a batch {tuple(values.shape)}; give some")
