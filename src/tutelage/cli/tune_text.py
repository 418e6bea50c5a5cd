"""What `tutelage tune` prints: a line a trial, and the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tutelage.analysis.formatting import MISSING, format_metric, metric_format, text_table
from tutelage.tune.records import TrialRecord
from tutelage.tune.search import Drawn

ROWS = 10  # of the table


class TrialLines:
    """Prints a line a trial on stderr, and shows on a terminal how the trial under way goes on.

    Args:
        wanted: number of trials.
        monitor: name of the score.
    """

    def __init__(self, wanted: int, monitor: str) -> None:
        self.count = 0
        self._wanted = wanted
        self._monitor = monitor
        label = metric_format(monitor).label
        self._label = label.removesuffix(", %")
        self._unit = " %" if label != self._label else ""
        is_terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=wanted, unit="trial", disable=not is_terminal, dynamic_ncols=True, smoothing=0
        )
        self._file = sys.stderr  # what a trial prints goes elsewhere meanwhile

    def begin_baseline(self) -> None:
        """Show that the student without a method runs."""
        self._bar.set_postfix_str("the student without a method")

    def end_baseline(self, score: float) -> None:
        """Print the score that trials are compared with."""
        tqdm.write(f"without a method  →  {self._figure(score)}", file=self._file)

    def begin(self, drawn: Drawn) -> None:
        """Show what runs."""
        self._bar.update(drawn.position - self._bar.n)
        self._bar.set_postfix_str(f"{drawn.candidate.name}, {_numbers(drawn.values)}")

    def epoch(self, drawn: Drawn, epoch: int, score: float) -> None:
        """Show the score."""
        figure = format_metric(self._monitor, score)
        self._bar.set_postfix_str(f"{drawn.candidate.name}, epoch {epoch}: {figure}")

    def end(self, record: TrialRecord) -> None:
        """Print the line of a trial."""
        self.count += 1
        self._bar.update(record.position + 1 - self._bar.n)
        line = (
            f"trial {record.position + 1}/{self._wanted}  {record.method}: "
            f"{_numbers(record.values)}  →  {self._outcome(record)}"
        )
        tqdm.write(line, file=self._file)
        self._file.flush()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _figure(self, score: float | None) -> str:
        return f"{self._label} {format_metric(self._monitor, score)}{self._unit}"

    def _outcome(self, record: TrialRecord) -> str:
        if record.state == "failed":
            return f"failed: {record.error}"
        figure = self._figure(record.score)
        return figure if record.state == "done" else f"{figure}, ended after epoch {record.epochs}"


def outcome_text(
    records: Sequence[TrialRecord], best: TrialRecord, baseline: float, monitor: str
) -> str:
    """Return the table of the best trials, those that ran to their end first.

    Args:
        records: all trials.
        best: the best one.
        baseline: the score of the student without a method.
        monitor: name of the score.
    """
    ranked = sorted(records, key=lambda record: _rank(record, best))
    rows = [
        [
            str(record.position + 1),
            record.method,
            _numbers(record.values),
            format_metric(monitor, record.score) if record.score is not None else MISSING,
            record.state if record.state != "stopped" else f"ended after {record.epochs}",
        ]
        for record in ranked[:ROWS]
    ]
    header = ["trial", "recipe", "numbers", f"validation {metric_format(monitor).label}", "epochs"]
    rows.append(["–", "baseline", "", format_metric(monitor, baseline), "done"])
    text = text_table(header, rows)
    more = len(records) - ROWS
    if more > 0:
        text += f"\n… and {more} more"
    if best.score is not None and best.score <= baseline:
        text += "\nno trial was better than the student without a method"
    return text


def _rank(record: TrialRecord, best: TrialRecord) -> tuple[bool, bool, float, int]:
    score = float("-inf") if record.score is None else record.score
    return record is not best, record.state != "done", -score, record.position


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
