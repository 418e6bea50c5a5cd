"""Whether masks hold the classes of their data set, found out when they are loaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from tutelage.data.masks import VOID, MaskSet
from tutelage.errors import UserError

FIRST_CHUNK = 16  # masks that are read before it is asked whether all classes were found
MAX_CHUNK = 256
SHOWN = 8  # classes that a message names


def check_mask_classes(masks: MaskSet, classes: Sequence[str], part: str, is_train: bool) -> None:
    """Check that the classes occur in the masks of a part, and that 255 means what it should.

    Masks are read until every class was found, so this is fast unless one is missing.

    Args:
        masks: the part.
        classes: names by class.
        part: names the part in messages.
        is_train: whether it is trained on; only then every class has to occur.

    Raises:
        UserError: If training masks hold one class at most, beside pixels without a class.
    """
    if len(masks) == 0 or len(classes) < 2:
        return
    enough = len(classes) if is_train else 2
    found, has_void = _found_classes(masks, len(classes), enough)
    missing = [name for label, name in enumerate(classes) if not found[label]]
    first = masks.pairs[int(masks.ids[0])][1]
    where = f"the masks of {part} (such as {first})"
    if has_void and int(found.sum()) <= 1:
        message = (
            f"{where} hold {_names(classes, found)} and else only pixels without a class (such as "
            f"those of {VOID})"
        )
        if masks.mask_format.accepts_values:
            message += "; if that is the number of a class, set data.values, such as {0: 0, 255: 1}"
        else:
            message += "; get the masks in the numbers of this data set"
        if is_train:
            raise UserError(message)
        warnings.warn(message, stacklevel=3)
    elif missing and is_train:
        listed = ", ".join(repr(name) for name in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        message = f"{where} hold no pixel of {listed}{more}; nothing can be learned about them"
        if masks.mask_format.accepts_values:
            message += ", check data.names, and data.values if the files have other numbers"
        warnings.warn(message, stacklevel=3)


def _found_classes(masks: MaskSet, num_classes: int, enough: int) -> tuple[Tensor, bool]:
    """Return which classes occur (num_classes,), and whether any pixel has none.

    They are complete unless that is enough classes already.
    """
    generator = torch.Generator().manual_seed(0)
    # Neighbors in a list are often alike.
    order = torch.randperm(len(masks), generator=generator).tolist()
    counts = torch.zeros(256, dtype=torch.int64)

    def count(position: int) -> Tensor:
        _, mask_file = masks.pairs[int(masks.ids[position])]
        return torch.bincount(masks.mask_format.read(mask_file).flatten(), minlength=256)

    start = 0
    size = FIRST_CHUNK
    with ThreadPoolExecutor() as pool:
        while start < len(order) and int((counts[:num_classes] > 0).sum()) < enough:
            counts += torch.stack(list(pool.map(count, order[start : start + size]))).sum(0)
            start += size
            size = min(2 * size, MAX_CHUNK)
    return counts[:num_classes] > 0, bool(counts[VOID] > 0)


def _names(classes: Sequence[str], found: Tensor) -> str:
    names = [name for label, name in enumerate(classes) if found[label]]
    return f"only the class {names[0]!r}" if names else "none of the classes"
