"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

# The text before the bar is the epoch and its figure; what is too long is cut on the right, and
# there stand the terms.
BAR = (
    "{desc}{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_fmt}]{postfix}"
)


class Progress:
    """A progress bar on a terminal, a line every epoch elsewhere, nothing on other ranks.

    Args:
        total: optimizer steps of the run.
        done: steps that were done before it was resumed.
        shown: False on all ranks but the first.
        epochs: of the run.
        device: where the run computes, in words. It is said at once on a terminal, and with the
            first epoch elsewhere, so that a run that is refused before that says why and no more.
    """

    def __init__(self, total: int, done: int, shown: bool, epochs: int, device: str) -> None:
        self._total = total
        self._done = done
        self._shown = shown
        self._epochs = epochs
        self._terminal = shown and sys.stderr.isatty()
        self._device = device
        if self._terminal:
            print(device, file=sys.stderr)
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit="step",
            disable=not self._terminal,
            mininterval=0.2,
            dynamic_ncols=True,
            # The mean since the start, so that the time left is that of the whole run, with its
            # validations.
            smoothing=0,
            bar_format=BAR,
        )
        self._start = time.monotonic()
        self._done_at_start = done
        self._figures = ""

    def step(self) -> None:
        """Count one optimizer step."""
        self._done += 1
        self._bar.update()

    def epoch(self, number: int, figures: Mapping[str, float], terms: Mapping[str, float]) -> None:
        """Show an epoch that is over.

        Args:
            number: of the epoch, from 1.
            figures: what the epoch is judged by; empty if it was not validated.
            terms: of the loss, by name.
        """
        epoch = f"epoch {number}/{self._epochs}"
        said = _listed(figures)
        self._figures = said or self._figures  # a bar keeps the last figure, a line has its own
        self._bar.set_description_str(f"{epoch} {self._figures} ", refresh=False)
        summed = _listed(sum_by_method(terms))
        self._bar.set_postfix_str(summed, refresh=False)
        if not self._shown or self._terminal:
            return
        if self._device:
            print(self._device, file=sys.stderr)
            self._device = ""
        rate = (self._done - self._done_at_start) / max(time.monotonic() - self._start, 1e-9)
        left = duration((self._total - self._done) / rate) if rate else "?"
        parts = [epoch, said, f"{left} left", f"{rate:.3g} step/s", summed]
        print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def sum_by_method(terms: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of the terms of each method; the log has each of them.

    >>> sum_by_method({"task": 1.0, "rcka/intra": 0.25, "rcka/inter": 0.5})
    {'task': 1.0, 'rcka': 0.75}
    """
    sums: dict[str, float] = {}
    for name, value in terms.items():
        method = name.partition("/")[0]
        sums[method] = sums.get(method, 0.0) + value
    return sums


def duration(seconds: float) -> str:
    """Return a time in the unit that fits.

    >>> duration(42.4), duration(600), duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def device_line(accelerator: Accelerator) -> str:
    """Return where a run computes and in which precision, for a person."""
    device = accelerator.device
    parts = [f"device {device.type}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    elif device.type == "cpu":
        parts.append(f"{torch.get_num_threads()} thread(s)")
    parts.append({"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision))
    if accelerator.num_processes > 1:
        parts.append(f"{accelerator.num_processes} processes")
    return ", ".join(parts)


def _listed(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in figures.items())
