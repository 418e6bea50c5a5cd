"""`tutelage train`: one recipe, one run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.tables import figures_line
from tutelage.cli.teachers import with_teacher
from tutelage.engine import fit
from tutelage.engine.run_folder import RunFolder


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train; print where the run lies and its figures on test data."""
    parsed = parse_recipe(arguments.recipe, overrides)
    out = Path(arguments.out or default_out(parsed))
    if not with_teacher(parsed, arguments.teachers):
        print("interrupted while training the teacher; run the same command to go on")
        return 130
    text = parsed.text()
    RunFolder(out).check(text, arguments.resume)
    metrics = fit(parsed.build(), out, resume=arguments.resume, text=text)
    if metrics is None:
        print(f"interrupted; the run is saved in {out}: run the same command with --resume to go on")
        return 130
    print(f"{out}: test {figures_line(metrics['test'])}  ({metrics['seconds']:.0f} s)")
    return 0


def default_out(parsed: Parsed) -> str:
    """Return runs/<task>-<dataset>-<method>-seed<seed>, from where the recipe lies."""
    parts = [*parsed.path.resolve().parent.parts[-2:], parsed.path.stem]
    return f"runs/{'-'.join(parts)}-seed{parsed.config.seed}"
