"""The statistics of a study and its table, for the terminal, Markdown and pages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tutelage import UserError
from tutelage.analysis.formatting import format_mean_std, format_short, metric_format
from tutelage.analysis.study import (
    BASELINE,
    MeanStd,
    check_runs,
    collect,
    interval,
    summarize,
)
from tutelage.analysis.study_table import (
    Cell,
    StudyTable,
    difference_column,
    mean_column,
    method_column,
    metric_column,
    study_table_text,
)


def run(ap: float, seconds: float, **extra: float) -> dict[str, Any]:
    """Return the metrics of a run, as a task that knows `ap` would leave them."""
    test = {"ap": ap, "num_samples": 10.0}
    return {
        "checkpoint": "best",
        "test": test,
        "last": {"epoch": 4, "test": {"ap": ap / 2, "num_samples": 10.0}},
        "best": {"epoch": 2, "test": test},
        "validation": {"ap": ap + 0.01},
        "parameters": {"student": 1000, "method": 20},
        "seconds": seconds,
        "steps": 10,
        **extra,
    }


RUNS = {
    "baseline": {0: run(0.5, 1.0, peak_mib=100.0), 1: run(0.6, 1.0, peak_mib=100.0)},
    "kd": {0: run(0.6, 1.5, peak_mib=130.0), 1: run(0.72, 2.5, peak_mib=110.0)},
}


def test_mean_and_deviation_are_those_of_numpy() -> None:
    values = [0.3, 0.7, 0.45, 0.1]
    summary = MeanStd.of(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values, ddof=1))
    assert math.isnan(MeanStd.of([0.5]).std)


def test_the_interval_is_that_of_scipys_t_test() -> None:
    differences = [0.3, 0.7, 0.45, 0.1, -0.2]
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
    assert interval(differences, 0.9) == pytest.approx((expected.low, expected.high))
    assert all(math.isnan(bound) for bound in interval([0.3]))


def test_a_study_is_read_as_far_as_it_is_finished(tmp_path: Path) -> None:
    for seed in (0, 2):
        folder = tmp_path / "kd" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"seed": seed}))
    (tmp_path / "kd/seed2/memory.json").write_text(json.dumps({"peak_mib": 81.5}))
    (tmp_path / "kd/seed1").mkdir()  # still training
    assert collect(tmp_path, ["baseline", "kd"], 3) == {
        "baseline": {},
        "kd": {0: {"seed": 0}, 2: {"seed": 2, "peak_mib": 81.5}},
    }
    (tmp_path / "kd/seed1/metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"kd/seed1/metrics.json is not whole \(.*\); remove it"):
        collect(tmp_path, ["kd"], 3)


def test_differences_and_costs_are_paired_by_seed() -> None:
    runs = {**RUNS, "kd": {**RUNS["kd"], 7: run(0.9, 9.0, peak_mib=999.0)}, "dkd": {}}
    summary = summarize(runs, "ap")
    assert list(summary) == ["baseline", "kd"]  # dkd has no finished run
    assert "difference" not in summary[BASELINE]
    row = summary["kd"]
    assert row["seeds"] == [0, 1, 7]
    assert row["test"]["ap"]["mean"] == pytest.approx((0.6 + 0.72 + 0.9) / 3)
    assert row["difference"]["metric"] == "ap"
    assert row["difference"]["pairs"] == pytest.approx([0.1, 0.12])  # seed 7 has no partner
    assert row["difference"]["interval95"] == interval(row["difference"]["pairs"])
    assert row["cost"]["step_ms"]["mean"] == pytest.approx((150 + 250 + 900) / 3)
    assert row["cost"]["step_ratio"]["mean"] == pytest.approx(2.0)
    assert row["cost"]["extra_peak_mib"]["mean"] == pytest.approx(20.0)
    assert row["cost"]["extra_peak_gpu_mib"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test": {"top1": 0.5}}, "has no ap among its test metrics"),
        ({"last": None}, "is not as tutelage writes it"),
        ({"seconds": "long"}, "has no number where seconds"),
        ({"validation": {"ap": "good"}}, "'good' is no number"),
        ({"parameters": {}}, "has no 'student'"),
    ],
)
def test_metrics_of_another_shape_are_named(change: dict[str, Any], says: str) -> None:
    check_runs(RUNS, "ap", Path("out"))
    runs = {**RUNS, "kd": {0: RUNS["kd"][0], 1: {**RUNS["kd"][1], **change}}}
    with pytest.raises(UserError, match=rf"^out/kd/seed1/metrics\.json .*{says}.*remove it"):
        check_runs(runs, "ap", Path("out"))


@pytest.mark.parametrize("content", ["[1]", "3", "[" * 100_000])
def test_metrics_that_are_no_record_are_named(tmp_path: Path, content: str) -> None:
    run = tmp_path / "kd/seed0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"kd/seed0/metrics\.json .*remove it"):
        collect(tmp_path, ["kd"], 1)


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_what_one_seed_lacks_has_no_mean(unknown: float | None) -> None:
    lacking = run(0.5, 1.0)
    lacking["test"] = {**lacking["test"], "ap": unknown}
    runs = {"baseline": RUNS["baseline"], "kd": {0: RUNS["kd"][0], 1: lacking}}
    check_runs(runs, "ap", Path("out"))
    row = summarize(runs, "ap")["kd"]
    assert math.isnan(row["test"]["ap"]["mean"])
    assert math.isnan(row["difference"]["mean"])
    assert study_table_text({"kd": row}, "ap").splitlines()[1].split()[:3] == ["kd", "–", "–"]


def test_test_metrics_are_those_of_the_checkpoint() -> None:
    last = run(0.5, 1.0)
    last["test"] = last["last"]["test"]
    row = summarize({"kd": {0: last}}, "ap")["kd"]
    assert (row["test"]["ap"]["mean"], row["last"]["ap"]["mean"]) == (0.25, 0.25)
    assert (row["best"]["ap"]["mean"], row["validation"]["ap"]["mean"]) == (0.5, 0.51)
    assert row["best_epoch"]["mean"] == 2.0


def test_the_table_of_one_seed_has_no_spread_and_that_of_two_has() -> None:
    header, baseline, kd = study_table_text(summarize(RUNS, "ap"), "ap").splitlines()
    assert header.split("  ")[0] == "method"
    assert "test AP, %" in header
    assert "- baseline [95 %]" in header.replace("−", "-")
    assert baseline.split()[-4:] == ["1,000", "20", "1.00", "+0"]
    assert kd.split()[:5] == ["kd", "66.00", "±", "8.49", "+11.00"]
    assert "[-1.71, +23.71]" in kd
    assert "33.00 ± 4.24" in kd  # the last epoch
    assert "67.00 ± 8.49" in kd  # validation
    assert kd.split()[-4:] == ["1,000", "20", "2.00", "+20"]
    one = {method: {0: by_seed[0]} for method, by_seed in RUNS.items()}
    row = study_table_text(summarize(one, "ap"), "ap").splitlines()[2]
    assert row.split()[:4] == ["kd", "60.00", "+10.00", "60.00"]


def test_what_is_unknown_of_the_cost_is_a_dash() -> None:
    table = study_table_text(summarize({"kd": {0: run(0.6, 1.5)}}, "ap"), "ap")
    row = table.splitlines()[1].split()
    assert row[2] == "–"
    assert row[-2:] == ["–", "–"]


def test_further_metrics_have_a_column_where_the_task_has_them() -> None:
    runs = {"baseline": {0: run(0.5, 1.0)}, "kd": {0: run(0.5, 1.0)}}
    runs["kd"][0]["test"] = {**runs["kd"][0]["test"], "teacher_kl": 0.1234}
    header, baseline, kd = study_table_text(summarize(runs, "ap"), "ap").splitlines()
    assert "KL to teacher" in header
    assert "ECE" not in header
    assert "0.123" in kd
    assert "0.123" not in baseline


def test_one_table_for_markdown_and_pages() -> None:
    runs = {**RUNS, "dkd": {seed: run(0.9 + seed / 10, 1.0) for seed in (0, 1)}}
    runs["rcka"] = {0: run(0.3, 1.0), 1: run(0.4, 1.0)}
    columns = [
        method_column("", str.upper),
        metric_column("ap", digits=1),
        metric_column("ap", "last", header="last epoch", with_std=False),
        difference_column("ap", digits=1),
        mean_column("epoch", lambda row: row["best_epoch"], digits=0),
    ]
    table = StudyTable.of(summarize(runs, "ap"), columns)
    assert table.rows[0][3] == Cell("–")
    dkd = table.rows[2]
    assert dkd[1].value == pytest.approx(0.95)
    assert (dkd[3].text, dkd[3].strong) == ("+40.0 [+40.0, +40.0]", True)
    assert table.rows[3][3].strong  # the interval excludes zero on the other side
    assert table.markdown() == (
        "|  | AP, % | last epoch | − baseline [95 %] | epoch |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| BASELINE | 55.0 ± 7.1 | 27.50 | – | 2 |\n"
        "| KD | 66.0 ± 8.5 | 33.00 | +11.0 [−1.7, +23.7] | 2 |\n"
        "| DKD | 95.0 ± 7.1 | 47.50 | **+40.0 [+40.0, +40.0]** | 2 |\n"
        "| RCKA | 35.0 ± 7.1 | 17.50 | −20.0 [−20.0, −20.0] | 2 |\n"
    )


def test_a_metric_of_a_class_and_an_unknown_one_have_a_label() -> None:
    assert metric_format("ar@100").label == "AR@100, %"
    assert metric_format("iou/gray matter").label == "IoU gray matter, %"
    assert metric_format("teacher_kl").label == "KL to teacher"
    assert format_mean_std("margin", {"mean": 0.5, "std": 0.25}) == "0.500 ± 0.250"
    assert format_short(float("nan")) == "–"
