"""The fade-in of loss terms."""

from __future__ import annotations

from tutelage.errors import UserError

Ramp = tuple[float, float]
"""Start and stop of a fade-in as shares of the run, 0 <= start <= stop <= 1."""


def check_ramp(ramp: Ramp | None) -> None:
    """Raise unless a ramp lies within the run.

    >>> check_ramp((0.7, 0.3))
    Traceback (most recent call last):
    tutelage.errors.UserError: ramp is (start, stop) with 0 <= start <= stop <= 1, got (0.7, 0.3); \
None is no ramp

    Raises:
        UserError: If start and stop are out of order or beyond the run.
    """
    if ramp is None:
        return
    is_pair = isinstance(ramp, (list, tuple)) and len(ramp) == 2
    are_numbers = is_pair and all(isinstance(share, (int, float)) for share in ramp)
    if not are_numbers or not 0 <= ramp[0] <= ramp[1] <= 1:
        raise UserError(
            f"ramp is (start, stop) with 0 <= start <= stop <= 1, got {ramp}; None is no ramp"
        )


def fade_in(progress: float, ramp: Ramp | None) -> float:
    """Return a factor that grows linearly from 0 to 1 between the two points of a ramp.

    >>> fade_in(0.2, (0.3, 0.7)), round(fade_in(0.4, (0.3, 0.7)), 6), fade_in(0.7, (0.3, 0.7))
    (0.0, 0.25, 1.0)
    >>> fade_in(0.0, None)
    1.0

    Args:
        progress: the share of the run that is done, 0 to 1.
        ramp: start and stop as shares of the run; None gives 1 from the beginning.
    """
    if ramp is None or progress >= ramp[1]:
        return 1.0
    start, stop = ramp
    if progress <= start:
        return 0.0
    return (progress - start) / (stop - start)
