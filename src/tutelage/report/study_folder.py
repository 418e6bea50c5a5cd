"""What a study's folder holds: results.json, and the runs where they lie beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.analysis.formatting import NUM_SAMPLES
from tutelage.analysis.study import BASELINE
from tutelage.report.charts import Series, Stroke
from tutelage.report.folder import errors_of, read_json, read_lines
from tutelage.report.run import metric_series


@dataclass(frozen=True)
class Study:
    """A study, read.

    Attributes:
        folder: the runs' logs and recipes lie in it.
        monitor: the metric that methods are compared in.
        summary: statistics by method, see `analysis.study.summarize`.
        runs: metrics.json by method and seed.
        provenance: versions, commit, hardware.
        teachers: by method, the test metrics of its teacher, where `tutelage study` found them.
    """

    folder: Path
    monitor: str
    summary: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]]
    provenance: Mapping[str, Any]
    teachers: Mapping[str, Mapping[str, Any]]

    def metric_names(self) -> list[str]:
        """Return the test metrics that any method has, in order."""
        names = dict.fromkeys(name for row in self.summary.values() for name in row["test"])
        return [name for name in names if name != NUM_SAMPLES]

    def teacher_test(self, method: str) -> Mapping[str, Any]:
        """Return the test metrics of a method's teacher; nothing if they are not known."""
        run = next(iter(self.runs[method].values()))
        own = run["teacher"].get("test") if isinstance(run["teacher"], Mapping) else None
        test = own or self.teachers.get(method)
        return test if isinstance(test, Mapping) else {}

    def seeds(self, method: str) -> list[str]:
        """Return the seeds of a method in order."""
        return sorted(self.runs[method], key=int)

    def first_run(self, method: str) -> Path:
        """Return the folder of a method's run with its first seed."""
        return self.folder / method / f"seed{self.seeds(method)[0]}"

    def all_runs(self) -> list[Mapping[str, Any]]:
        """Return the metrics of every run."""
        return [run for by_seed in self.runs.values() for run in by_seed.values()]

    def strokes(self) -> dict[str, Stroke]:
        """Return how each method's lines are drawn; the baseline has the first stroke."""
        methods = sorted(self.summary, key=lambda method: method != BASELINE)
        return {method: Stroke.of(i) for i, method in enumerate(methods)}

    def validation_series(self, method: str) -> list[dict[str, Series]]:
        """Return the validation metrics over epochs, for each run of a method that has a log."""
        by_run = []
        for seed in self.runs[method]:
            log = self.folder / method / f"seed{seed}" / "log.jsonl"
            if log.is_file():
                records = read_lines(log)
                with errors_of(log):
                    values = [(record["epoch"], record["validation"]) for record in records]
                    by_run.append(metric_series(values))
        return by_run


def read_study(folder: Path) -> Study:
    """Return a study by its results.json.

    Raises:
        UserError: If the file is missing, damaged or without a finished run.
    """
    path = folder / "results.json"
    results = read_json(path)
    with errors_of(path):
        if not results["summary"]:
            raise ValueError("it holds no finished run")
        for method, row in results["summary"].items():
            _check_method(method, row, results["runs"][method])
        return Study(
            folder=folder,
            monitor=str(results["monitor"]),
            summary=results["summary"],
            runs=results["runs"],
            provenance=results["provenance"],
            teachers=results.get("teachers") or {},
        )


def _check_method(method: str, row: Any, runs: Any) -> None:
    """Check that a method has runs, and names that are names of folders in the study's own."""
    if method in ("", ".", "..") or Path(method).name != method or "\0" in method:
        raise ValueError(f"{method!r} is no name of a method")
    if not isinstance(row, Mapping) or not isinstance(runs, Mapping) or not runs:
        raise ValueError(f"{method} has no runs")
    for seed, run in runs.items():
        if not seed.isdecimal() or not isinstance(run, Mapping):
            raise ValueError(f"{method} has no run with seed {seed}")
