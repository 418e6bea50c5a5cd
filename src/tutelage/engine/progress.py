"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

LINE_EVERY_SECONDS = 10.0


class Progress:
    """A progress bar on a terminal, a line every few seconds elsewhere, nothing on other ranks.

    Args:
        total: optimizer steps of the run.
        done: steps that were done before it was resumed.
        shown: False on all ranks but the first.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self._total = total
        self._done = done
        self._shown = shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit="step",
            disable=not self._terminal,
            mininterval=0.2,
            dynamic_ncols=True,
        )
        self._start = time.monotonic()
        self._done_at_start = done
        self._last_line = self._start

    def step(self) -> None:
        """Count one optimizer step."""
        self._done += 1
        self._bar.update()

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Show the figures of an epoch."""
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._bar.set_postfix_str(text, refresh=False)
        if not self._shown or self._terminal:
            return
        now = time.monotonic()
        is_last = self._done >= self._total
        if is_last or now - self._last_line > LINE_EVERY_SECONDS:
            rate = (self._done - self._done_at_start) / max(now - self._start, 1e-9)
            left = (self._total - self._done) / rate if rate else 0.0
            line = f"epoch {number}  {text}  {rate:.0f} step/s  {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
            self._last_line = now

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
