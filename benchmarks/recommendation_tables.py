"""The tables of recommenders: our figures, their paired differences, and the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study_results import result
from tutelage.analysis.formatting import MISSING, format_fixed, markdown_table
from tutelage.analysis.study import BASELINE, MeanStd, interval

RECOMMENDERS = ("citeulike-10", "citeulike-20", "citeulike-10-lightgcn", "ml-100k")  # studies
METRICS = ("recall@10", "ndcg@10", "recall@10/popular", "recall@10/unpopular", "share@10/popular")
DIFFERENCES = ("recall@10", "recall@10/unpopular")
TITLES = {
    "teacher": "teacher, 100 numbers",
    BASELINE: "student, tuned decay",
    "student of the paper": "student, the paper's decay",
    "rd": "RD",
    "cd": "CD",
    "rrd": "RRD",
    "unkd": "UnKD",
    "unkd 0.1": "UnKD",
    "unkd of the paper": "UnKD, the paper's decay",
}
# Recall@10, NDCG@10, and recall of popular and unpopular items, of the paper's tables.
PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "citeulike-10": {
        "teacher": ".1518 / .1016",
        "student of the paper": ".0760 / .0477, .0831 / .0095",
        "rd": ".0808 / .0514",
        "cd": ".0801 / .0518, .0887 / .0088",
        "unkd of the paper": ".0863 / .0550, .0854 / .0208",
    },
    "citeulike-10-lightgcn": {
        "teacher": ".1657 / .1139",
        BASELINE: ".0783 / .0510",
        "rd": ".0833 / .0538",
        "cd": ".0936 / .0616",
        "unkd": ".1006 / .0654",
    },
}
HEADER = (
    "",
    "Recall@10",
    "NDCG@10",
    "popular",
    "unpopular",
    "popular share",
    "Recall − student [95 %]",
    "unpopular − student [95 %]",
    "published",
    "seeds",
)

Runs = Mapping[str, Mapping[str, Any]]  # by seed


def recommendation_table(name: str) -> str:
    """Return the table of a study of recommenders; empty if it was not run."""
    study = result(name)
    if not study["summary"]:
        return ""
    teachers = {str(n): run for n, run in enumerate(study["teachers"].values())}
    runs: dict[str, Runs] = {"teacher": teachers, **study["runs"]}
    order = [key for key in TITLES if runs.get(key)]
    titles = [_title(key, study["variants"].get(key, [])) for key in order]
    rows = [
        [row_title, *_cells(name, key, runs)] for row_title, key in zip(titles, order, strict=True)
    ]
    return markdown_table(HEADER, rows)


def _title(key: str, variant: Sequence[str]) -> str:
    """Return the title of a row, with the method's weight where that is not the recipe's."""
    weights = [text.partition("=")[2] for text in variant if text.startswith("--method.weight=")]
    return f"{TITLES[key]}, weight {weights[0]}" if weights else TITLES[key]


def _cells(name: str, key: str, runs: Mapping[str, Runs]) -> list[str]:
    own, student = runs[key], runs[BASELINE]
    cells = []
    for metric in METRICS:
        stats = MeanStd.of([run["test"][metric] for run in own.values()])
        std = format_fixed(stats.std, 4)
        mean = format_fixed(stats.mean, 4)
        cells.append(mean if std == MISSING else f"{mean} ± {std}")
    for metric in DIFFERENCES:
        shared = [seed for seed in own if seed in student and key not in ("teacher", BASELINE)]
        values = [own[s]["test"][metric] - student[s]["test"][metric] for s in shared]
        cells.append(_difference(values))
    return [*cells, PUBLISHED.get(name, {}).get(key, MISSING), str(len(own))]


def _difference(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    mean = format_fixed(MeanStd.of(values).mean, 4, sign=True)
    low, high = (format_fixed(bound, 4, sign=True) for bound in interval(values))
    return mean if low == MISSING else f"{mean} [{low}, {high}]"
