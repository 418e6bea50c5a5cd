"""A plan as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.analysis.formatting import text_table
from tutelage.engine.checks.terms import TermScale
from tutelage.engine.dry_run import Plan


def describe(plan: Plan) -> str:
    """Return a plan as text."""
    counts = "  ".join(f"{name} {count}" for name, count in plan.num_samples.items())
    parameters = "  ".join(f"{name} {count:,}" for name, count in plan.parameters.items())
    sections = [f"samples     {counts}\nparameters  {parameters}"]
    if plan.features:
        rows = [[f"{role} {name}", _shape(shape)] for role, name, shape in plan.features]
        sections.append(text_table(["layer", "shape (one batch)"], rows))
    if plan.connectors:
        rows = [[name, _shape(shape), f"{math.prod(shape):,}"] for name, shape in plan.connectors]
        sections.append(text_table(["connector to be made", "shape", "parameters"], rows))
    sections.append(_terms(plan.terms, plan.gradient_cap))
    if plan.pairs:
        sections.append(_pairs(plan.pairs))
    sections.append(_memory(plan))
    if plan.cache_seconds:
        sections.append(
            "the teacher runs once over all views of the training data, for teacher.cache: about "
            f"{_duration(plan.cache_seconds)}"
        )
    sections.append(
        f"{plan.steps} steps of {plan.step_seconds * 1e3:.1f} ms here: about "
        f"{_duration(plan.steps * plan.step_seconds)} without validation"
    )
    return "\n\n".join(sections)


def _terms(scales: Sequence[TermScale], cap: float | None) -> str:
    rows = []
    for scale in scales:
        ratio = "" if scale.ratio is None else f"{scale.ratio:.2g}"
        rows.append([scale.term, f"{scale.value:.4g}", f"{scale.gradient:.3g}", ratio])
    lines = [text_table(["term at full weight", "value", "gradient", "× task"], rows)]
    if cap is not None:
        lines.append(
            f"train.gradient_cap {cap:g}: the method's terms together pull at most {_times(cap)} "
            "as the labels on average over some 200 steps, harder only in their direction, and "
            "less against them"
        )
    elif all(scale.term != "task" for scale in scales):
        lines.append("the labels have no weight, so train.gradient_cap has nothing to measure by")
    for scale in scales:
        warning = scale.warning(is_capped=cap is not None)
        if warning:
            lines.append(f"warning: {warning}")
    return "\n".join(lines)


def _memory(plan: Plan) -> str:
    size = f"{plan.activation_bytes / 2**20:.1f} MiB"
    if plan.pieces == 1:
        return f"the student keeps {size} of a batch for its backward pass"
    return (
        f"the student keeps {size} of a piece for its backward pass (train.accumulate "
        f"{plan.pieces}), and runs twice"
    )


def _times(limit: float) -> str:
    return "as hard" if limit == 1 else f"{limit:g} times as hard"


def _pairs(pairs: Sequence[tuple[str, str, float]]) -> str:
    rows = [[student, teacher, f"{cka:.2f}"] for student, teacher, cka in pairs]
    setting = ", ".join(f"{student}: {teacher}" for student, teacher, _ in pairs)
    return (
        text_table(["student layers that agree", "with the teacher's", "CKA now"], rows)
        + f"\nfor RCKA or FitNet: layer_pairs: {{{setting}}}"
    )


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
