"""The table of what it is worth that RCKA aligns probabilities instead of logits."""

from __future__ import annotations

from benchmarks.study_results import CIFAR10, SETTINGS, result, summary, title
from tutelage.analysis.formatting import markdown_table
from tutelage.analysis.study_table import difference_column

EARLIER = "rcka_of_logits"  # of recipes as they were before
VARIANTS = ("rcka", "rcka_kd")


def probabilities_table() -> str:
    """Return differences to the baseline within the cap, of logits and of probabilities."""
    difference = difference_column("top1", digits=1)
    lines = []
    for setting, earlier in result(EARLIER)["settings"].items():
        now = result(setting)["summary"] if setting in CIFAR10 else summary(f"{setting}-capped")
        pairs = [(earlier["summary"][variant], now[variant]) for variant in VARIANTS]
        name = {**SETTINGS, **CIFAR10}[setting]
        lines.append(
            [name, *(difference.cell("", row).markdown() for pair in pairs for row in pair)]
        )
    header = [
        f"{title(name)}, of {what}" for name in VARIANTS for what in ("logits", "probabilities")
    ]
    return markdown_table(["within the cap", *header], lines)
