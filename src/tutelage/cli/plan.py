"""`tutelage plan`: a dry run in plain words."""

from __future__ import annotations

import argparse
import math

from tutelage.cli.recipes import parse_recipe
from tutelage.cli.tables import table
from tutelage.cli.teachers import build_now, resolve_teacher
from tutelage.engine.plan import Plan, plan


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Plan and print."""
    parsed = parse_recipe(arguments.recipe, overrides)
    recipe = build_now(parsed, resolve_teacher(parsed, arguments.teachers))
    if recipe.teacher is not None and recipe.teacher.weights is None:
        print("the teacher has no weights yet: values below are those of an untrained teacher\n")
    show(plan(recipe))
    return 0


def show(found: Plan) -> None:
    """Print a plan."""
    print("images      " + "  ".join(f"{name} {n}" for name, n in found.images.items()))
    print("parameters  " + "  ".join(f"{name} {n:,}" for name, n in found.parameters.items()))
    if found.taps:
        rows = [[f"{whose} {name}", _shape(shape)] for whose, name, shape in found.taps]
        print("\n" + table(["tap", "shape (one batch)"], rows))
    if found.connectors:
        rows = [[name, _shape(shape), f"{math.prod(shape):,}"] for name, shape in found.connectors]
        print("\n" + table(["connector to be made", "shape", "parameters"], rows))
    rows = [
        [scale.term, f"{scale.value:.4g}", f"{scale.gradient:.3g}", "" if scale.ratio is None else f"{scale.ratio:.2g}"]
        for scale in found.terms
    ]
    print("\n" + table(["term at full weight", "value", "gradient", "× task"], rows))
    for warning in filter(None, (scale.warning() for scale in found.terms)):
        print(f"warning: {warning}")
    if found.pairs:
        rows = [[mine, theirs, f"{value:.2f}"] for mine, theirs, value in found.pairs]
        print("\n" + table(["student layers that agree", "with the teacher's", "CKA now"], rows))
        print("for RCKA or Mimic: pairs: {" + ", ".join(f"{mine}: {theirs}" for mine, theirs, _ in found.pairs) + "}")
    total = found.steps * found.step_seconds
    print(
        f"\n{found.steps} steps of {found.step_seconds * 1e3:.1f} ms here: about {_duration(total)} without validation"
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
