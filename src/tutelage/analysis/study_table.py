"""The table of a study, which the terminal, the report's page and Markdown files show alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.analysis.formatting import (
    MISSING,
    finite,
    format_fixed,
    format_mean_std,
    format_metric,
    format_short,
    markdown_table,
    metric_format,
    text_table,
)
from tutelage.analysis.study import BASELINE

# Further metrics that the table in the terminal shows where a task has them.
OTHER_METRICS = (
    "agreement",
    "teacher_kl",
    "ece",
    "auroc_near",
    "fpr95_near",
    "recall@10",
    "recall@10/popular",
    "recall@10/unpopular",
    "share@10/popular",
    "mrr@10",
    "recall@100",
    "retention_ndcg@10",
    "query_distance",
    "bm25_ndcg@10",
)

Row = Mapping[str, Any]  # of one method in a summary, see `summarize`
Split = Literal["test", "last", "best", "validation"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is read.
        value: what a page sorts by; None sorts by the text, and comes last among numbers.
        strong: whether it stands out.
    """

    text: str
    value: float | None = None
    strong: bool = False

    def markdown(self) -> str:
        """Return the cell in Markdown: in bold if it stands out and is above zero."""
        is_gain = self.value is not None and self.value > 0
        return f"**{self.text}**" if self.strong and is_gain else self.text


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        header: what stands over it.
        cell: returns the cell of a method, given its name and its row of the summary.
    """

    header: str
    cell: Callable[[str, Row], Cell]


@dataclass(frozen=True)
class StudyTable:
    """A header, and one row of cells for each method."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, summary: Mapping[str, Row], columns: Sequence[Column]) -> StudyTable:
        """Return the table of a study.

        Args:
            summary: see `summarize`.
            columns: what to show.
        """
        rows = [[column.cell(method, row) for column in columns] for method, row in summary.items()]
        return cls([column.header for column in columns], rows)

    def text(self) -> str:
        """Return the table for a terminal."""
        rows = [[cell.text.replace("−", "-") for cell in row] for row in self.rows]
        return text_table(self.header, rows)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        rows = [[cell.markdown() for cell in row] for row in self.rows]
        return markdown_table(self.header, rows)


def study_table_text(summary: Mapping[str, Row], monitor: str = "top1") -> str:
    """Return the table for a terminal: the metric compared, closeness to the teacher, cost.

    The test metric is that of the epoch which the recipe ships. Beside it stand those of the best
    epoch on validation data and of the last one, and the best epoch's on validation data, to choose
    hyper-parameters by.

    Args:
        summary: see `summarize`.
        monitor: the metric that methods are compared in.
    """
    known = {name for row in summary.values() for name in row["test"]}
    columns = [
        method_column(),
        metric_column(monitor, header=f"test {metric_format(monitor).label}"),
        difference_column(monitor),
        metric_column(monitor, "best", header="best epoch"),
        metric_column(monitor, "last", header="last epoch"),
        metric_column(monitor, "validation", header="validation"),
        *(metric_column(name) for name in OTHER_METRICS if name in known),
        parameters_column("student", header="parameters"),
        parameters_column("method", header="method's"),
        step_ratio_column(),
        memory_column(header="memory, MiB"),
    ]
    return StudyTable.of(summary, columns).text()


def method_column(header: str = "method", title: Callable[[str], str] = str) -> Column:
    """Return the column of the methods' names.

    Args:
        header: what stands over it.
        title: returns what to write for a name.
    """
    return Column(header, lambda method, row: Cell(title(method)))


def metric_column(
    metric: str,
    split: Split = "test",
    *,
    header: str | None = None,
    digits: int | None = None,
    with_std: bool = True,
) -> Column:
    """Return the column of a metric, mean ± standard deviation over seeds.

    Args:
        metric: its name.
        split: "test" is of the epoch that the recipe ships, "last" and "best" are test metrics of
            these epochs, "validation" is of the best epoch.
        header: what stands over it; None takes the metric's label.
        digits: after the decimal point; None takes those of the metric.
        with_std: False writes the mean alone.
    """

    def cell(method: str, row: Row) -> Cell:
        stats = row[split].get(metric)
        if stats is None:
            return Cell(MISSING)
        if with_std:
            text = format_mean_std(metric, stats, digits=digits)
        else:
            text = format_metric(metric, stats["mean"], digits=digits)
        return Cell(text, finite(stats["mean"]))

    return Column(metric_format(metric).label if header is None else header, cell)


def difference_column(
    monitor: str,
    *,
    header: str = f"− {BASELINE} [95 %]",
    digits: int | None = None,
) -> Column:
    """Return the column of the difference to the baseline, paired by seed, with its interval.

    A cell stands out where the interval excludes zero.

    Args:
        monitor: the metric that methods are compared in.
        header: what stands over it.
        digits: after the decimal point; None takes those of the metric.
    """

    def cell(method: str, row: Row) -> Cell:
        difference = row.get("difference")
        if difference is None:
            return Cell(MISSING)
        low, high = difference["interval95"]
        mean = format_metric(monitor, difference["mean"], sign=True, digits=digits)
        if finite(low) is None or finite(high) is None:
            return Cell(mean, difference["mean"])
        low_text = format_metric(monitor, low, sign=True, digits=digits)
        high_text = format_metric(monitor, high, sign=True, digits=digits)
        excludes_zero = low > 0 or high < 0
        return Cell(f"{mean} [{low_text}, {high_text}]", difference["mean"], strong=excludes_zero)

    return Column(header, cell)


def mean_column(
    header: str,
    stats: Callable[[Row], Mapping[str, float] | None],
    *,
    digits: int,
    sign: bool = False,
) -> Column:
    """Return the column of a mean over seeds.

    Args:
        header: what stands over it.
        stats: returns mean and deviation of a method's row, or None if unknown.
        digits: after the decimal point.
        sign: whether a plus sign is written.
    """

    def cell(method: str, row: Row) -> Cell:
        values = stats(row)
        if values is None:
            return Cell(MISSING)
        return Cell(format_fixed(values["mean"], digits, sign=sign), finite(values["mean"]))

    return Column(header, cell)


def step_ratio_column() -> Column:
    """Return the column of a step's time as a ratio to the baseline's."""
    return mean_column(f"step / {BASELINE}", lambda row: row["cost"]["step_ratio"], digits=2)


def memory_column(header: str) -> Column:
    """Return the column of the peak memory beyond the baseline's, of the GPU if there was one."""

    def stats(row: Row) -> Any:
        return row["cost"]["extra_peak_gpu_mib"] or row["cost"]["extra_peak_mib"]

    return mean_column(header, stats, digits=0, sign=True)


def parameters_column(part: Literal["student", "method"], header: str) -> Column:
    """Return the column of the number of parameters, of the shipped student or of the method."""

    def cell(method: str, row: Row) -> Cell:
        count = row["parameters"][part]
        return Cell(format_short(count), count)

    return Column(header, cell)
