"""The live line of a run: steps done, rate, time left, the terms; plain lines where there is no terminal."""

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
        total, done: optimiser steps of the run, and those done before it went on.
        shown: False on all ranks but the first.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self._total, self._done, self._shown = total, done, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, initial=done, unit="step", disable=not self._terminal, mininterval=0.2, dynamic_ncols=True
        )
        self._started, self._from, self._said = time.monotonic(), done, time.monotonic()

    def step(self) -> None:
        """One optimiser step is done."""
        self._done += 1
        self._bar.update()

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """An epoch is done; show its figures."""
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        last = self._done >= self._total
        if self._shown and not self._terminal and (last or now - self._said > LINE_EVERY_SECONDS):
            rate = (self._done - self._from) / max(now - self._started, 1e-9)
            left = (self._total - self._done) / rate if rate else 0.0
            print(f"epoch {number}  {text}  {rate:.0f} step/s  {left:.0f} s left", file=sys.stderr, flush=True)
            self._said = now

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
