"""How metrics and other numbers are written in tables and reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "–"
NUM_SAMPLES = "num_samples"  # the metric that says how many samples the others are over

_PERCENT = {
    "top1": "top-1",
    "top5": "top-5",
    "agreement": "agreement",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar@100": "AR@100",
    "teacher_ap": "teacher’s AP",
    "auroc_near": "AUROC near",
    "fpr95_near": "FPR95 near",
    "auroc_far": "AUROC far",
    "fpr95_far": "FPR95 far",
    "map": "mAP",
    "f1": "F1",
    "f1_macro": "F1 over classes",
    "miou": "mIoU",
    "accuracy": "accuracy",
    "ar": "AR",
    "ar50": "AR50",
    "ar75": "AR75",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
    "pck": "PCK",
    "branch_agreement": "branches agree",
}
_PLAIN = {
    "ece": "ECE",
    "bce": "BCE",
    "nll": "NLL",
    "teacher_kl": "KL to teacher",
    "retention_ndcg@10": "retention",
    "query_distance": "query distance",
}
# Metrics of rankings, at the first k places, and those of a group of items.
_RANKING = {
    "recall": "Recall",
    "precision": "Precision",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "teacher_ndcg": "teacher’s NDCG",
    "bm25_ndcg": "BM25’s NDCG",
    "share": "Share of places",
    "recall_of_owners": "Recall of users with such items",
}
_BY_CLASS = {"ap": "AP", "iou": "IoU", "pck": "PCK"}  # of metrics such as ap/tree
_COSTS = {"peak_mib": "peak memory, MiB", "peak_gpu_mib": "peak GPU memory, MiB"}


@dataclass(frozen=True)
class MetricFormat:
    """How one metric is written.

    Attributes:
        label: its name for people, with the unit.
        scale: what a value is multiplied by.
        digits: after the decimal point.
    """

    label: str
    scale: float = 1.0
    digits: int = 3


def metric_format(name: str) -> MetricFormat:
    """Return how a metric is written; the label of an unknown one is its name in words.

    >>> metric_format("ap/tree").label, metric_format("mean_margin").label
    ('AP tree, %', 'mean margin')
    >>> metric_format("pck@0.1").label, metric_format("ensemble/pck").label
    ('PCK@0.1, %', 'ensemble PCK, %')
    >>> metric_format("ndcg@20").label, metric_format("recall@10/popular").label
    ('NDCG@20', 'Recall@10 popular')
    """
    prefix, _, class_name = name.partition("/")
    ranking, _, places = prefix.partition("@")
    if places and ranking in _RANKING:
        return MetricFormat(f"{_RANKING[ranking]}@{places} {class_name}".strip(), digits=4)
    if class_name.startswith("pck"):  # of another prediction than the network's own
        own = metric_format(class_name)
        return MetricFormat(f"{prefix} {own.label}", own.scale, own.digits)
    if name.startswith("pck@"):
        return MetricFormat(f"PCK{name.removeprefix('pck')}, %", 100.0, 2)
    if class_name and prefix in _BY_CLASS:
        return MetricFormat(f"{_BY_CLASS[prefix]} {class_name}, %", 100.0, 2)
    if name in _PERCENT:
        return MetricFormat(f"{_PERCENT[name]}, %", 100.0, 2)
    return MetricFormat(_PLAIN.get(name, name.replace("_", " ")))


def is_class_metric(name: str) -> bool:
    """Return whether a metric is that of one class or group, of which a task can have hundreds.

    >>> is_class_metric("ap/tree"), is_class_metric("ap"), is_class_metric("big/top1")
    (True, False, False)
    """
    prefix, _, class_name = name.partition("/")
    is_known = prefix in _BY_CLASS or prefix.partition("@")[0] in _RANKING
    return bool(class_name) and is_known


def cost_label(name: str) -> str:
    """Return what a cost of metrics.json or memory.json is called.

    >>> cost_label("peak_mib"), cost_label("flash_reads")
    ('peak memory, MiB', 'flash reads')
    """
    return _COSTS.get(name, name.replace("_", " "))


def finite(value: Any) -> float | None:
    """Return a finite number as it is, and None for anything else; true is not 1.

    >>> finite(3), finite(float("nan")), finite("3"), finite(True)
    (3, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond the floats
        return None


def format_fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return a number with a fixed number of digits after the decimal point.

    >>> format_fixed(-1.234, 2), format_fixed(0.5, 1, sign=True), format_fixed(None, 2)
    ('−1.23', '+0.5', '–')
    """
    if finite(value) is None:
        return MISSING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def format_short(value: Any) -> str:
    """Return a number with four significant digits, or a whole one with separated thousands.

    >>> format_short(136740), format_short(0.00299985), format_short(None)
    ('136,740', '0.003', '–')
    """
    number = finite(value)
    if number is None:
        return MISSING
    is_whole = number == round(number) and abs(number) < 1e15
    text = f"{number:,.0f}" if is_whole else f"{number:.4g}"
    return text.replace("-", "−")


def format_metric(
    name: str, value: float | None, *, sign: bool = False, digits: int | None = None
) -> str:
    """Return the value of a metric in its unit.

    >>> format_metric("top1", 0.85237), format_metric("ece", 0.101)
    ('85.24', '0.101')

    Args:
        name: of the metric.
        value: as the task computes it.
        sign: whether a plus sign is written.
        digits: after the decimal point; None takes those of the metric.
    """
    number = finite(value)
    if number is None:
        return MISSING
    style = metric_format(name)
    return format_fixed(number * style.scale, style.digits if digits is None else digits, sign=sign)


def format_mean_std(
    name: str, stats: Mapping[str, float] | None, *, digits: int | None = None
) -> str:
    """Return mean ± standard deviation of a metric, or the mean alone if there was one run.

    >>> format_mean_std("top1", {"mean": 0.85, "std": 0.01})
    '85.00 ± 1.00'
    >>> format_mean_std("top1", {"mean": 0.85, "std": float("nan")}, digits=1)
    '85.0'
    """
    if stats is None:
        return MISSING
    mean = format_metric(name, stats["mean"], digits=digits)
    std = format_metric(name, stats["std"], digits=digits)
    return mean if std == MISSING else f"{mean} ± {std}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns for a terminal, the first one to the left.

    >>> print(text_table(["name", "n"], [["a", "10"], ["bc", "7"]]))
    name   n
    a     10
    bc     7
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        for cell, width in zip(line[1:], widths[1:], strict=True):
            cells.append(cell.rjust(width))
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; every line ends with a line break.

    >>> markdown_table(["name", "n"], [["a", "10"]])
    '| name | n |\\n| --- | --- |\\n| a | 10 |\\n'
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
