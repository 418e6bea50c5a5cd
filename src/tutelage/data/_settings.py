"""What is said about a setting of a data set that is of another kind or out of range."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tutelage.core._arguments import shown_kind
from tutelage.errors import UserError


def check_root(root: object) -> None:
    """Raise unless the root of a data set is a path.

    >>> check_root(None)
    Traceback (most recent call last):
    tutelage.errors.UserError: data.root is the path of a folder, got None
    """
    if not isinstance(root, (str, os.PathLike)):
        raise UserError(f"data.root is the path of a folder, got {shown_kind(root)}")


def check_side(size: object) -> None:
    """Raise unless the side of images is a whole number from 1 on.

    >>> check_side(12.5)
    Traceback (most recent call last):
    tutelage.errors.UserError: data.size is the side of the images in whole pixels, at least 1, \
got 12.5
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UserError(
            f"data.size is the side of the images in whole pixels, at least 1, got "
            f"{shown_kind(size)}"
        )


def check_share(what: str, share: object, zero: bool = False) -> None:
    """Raise unless a share lies between 0 and 1.

    >>> check_share("data.validation", 2.0)
    Traceback (most recent call last):
    tutelage.errors.UserError: data.validation is a share between 0 and 1, got 2.0

    Args:
        what: the setting.
        share: its value.
        zero: whether it may be 0.
    """
    is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
    if is_number and (0 < share < 1 or (zero and share == 0)):  # type: ignore[operator]
        return
    raise UserError(f"{what} is a share between 0 and 1, got {shown_kind(share)}")


def check_statistics(name: str, values: object) -> None:
    """Raise unless a mean or a standard deviation has one number per channel.

    >>> check_statistics("data.mean", 0.5)
    Traceback (most recent call last):
    tutelage.errors.UserError: data.mean has one number per channel, such as [0.5, 0.5, 0.5], \
got 0.5
    """
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if is_list and all(isinstance(value, (int, float)) for value in values):  # type: ignore[attr-defined]
        return
    raise UserError(
        f"{name} has one number per channel, such as [0.5, 0.5, 0.5], got {shown_kind(values)}"
    )
