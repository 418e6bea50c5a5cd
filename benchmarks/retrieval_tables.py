"""The tables of docs/results.md on retrieval, from benchmarks/results/retrieval_*.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.study_results import result
from tutelage.analysis.formatting import MISSING, format_short, markdown_table

OTHER = "ndcg@10_without_grade_0"
TITLES = {
    "bm25": "BM25",
    "teacher": "teacher",
    "baseline": "direct",
    "score": "+ scores",
    "inherited": "+ inherited documents",
    "embed_distill": "+ query matching",
    "embed_distill_generated": "+ generated queries",
}


def retrieval_table(name: str) -> str:
    """Return the rows of a study, and the paired steps between them.

    Args:
        name: of the result, such as `retrieval_cranfield`.
    """
    content = result(name)
    systems: Mapping[str, Any] = content["systems"]
    teacher = systems["teacher"]
    lines = []
    for system, row in systems.items():
        measured = content["summary"].get(system, {}).get("test", {})
        lines.append(
            [
                TITLES[system],
                _with_std(row["ndcg@10"], measured.get("ndcg@10")),
                _with_std(row["mrr@10"], measured.get("mrr@10")),
                f"{row['recall@100']:.3f}",
                *([f"{row[OTHER]:.3f}"] if OTHER in teacher else []),
                f"{row['ndcg@10'] / teacher['ndcg@10']:.3f}",
                _mean(measured.get("query_distance")),
                MISSING if "parameters" not in row else format_short(row["parameters"]),
                MISSING if "query_ms" not in row else f"{row['query_ms']:.2f}",
            ]
        )
    header = ["", "nDCG@10", "MRR@10", "R@100"]
    header += ["nDCG@10, no grade 0"] if OTHER in teacher else []
    header += ["retention", "R_Q", "parameters", "ms a query"]
    steps = [
        [
            f"{TITLES[step['from']]} → {TITLES[step['to']]}",
            f"{step['difference']:+.4f} ± {step['standard_error']:.4f}",
            f"{step['p_value']:.4f}",
        ]
        for step in content["steps"]
    ]
    paired = ["step, paired by query", "difference in nDCG@10 ± s.e.", "p"]
    return f"{markdown_table(header, lines)}\n{markdown_table(paired, steps)}"


def _with_std(mean: float, stats: Mapping[str, float] | None) -> str:
    return f"{mean:.3f}" if stats is None else f"{mean:.3f} ± {stats['std']:.3f}"


def _mean(stats: Mapping[str, float] | None) -> str:
    return MISSING if stats is None else f"{stats['mean']:.2f}"
