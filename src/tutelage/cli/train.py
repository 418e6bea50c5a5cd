"""`tutelage train`: one recipe, one run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.cli.runs import is_first, train_run, write_memory
from tutelage.cli.tables import figures_line
from tutelage.cli.teachers import rehearse_run, resolve_teacher
from tutelage.engine.run_folder import RunFolder


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train; print where the run lies and its figures on test data."""
    parsed = parse_recipe(arguments.recipe, overrides)
    out = Path(arguments.out or default_out(parsed))
    teacher = resolve_teacher(parsed, arguments.teachers)
    folder = RunFolder(out)
    folder.check(parsed.text(), arguments.resume)
    alone = not folder.finished and (teacher is None or teacher.ready)  # nothing else is trained in this process
    if teacher is not None and not teacher.ready and not folder.finished:
        teacher.check_processes()
        rehearse_run(parsed, teacher)
        if not teacher.train():
            print("tutelage: interrupted in the teacher's run; give the same command to go on", file=sys.stderr)
            return 130
    metrics = train_run(parsed, out, arguments.resume)
    if metrics is None:
        print(f"tutelage: interrupted; {out} is saved: add --resume to go on", file=sys.stderr)
        return 130
    if is_first():
        if alone:
            write_memory(out)
        print(f"{out}: test {figures_line(metrics['test'])}  ({metrics['seconds']:.0f} s)")
    return 0


def default_out(parsed: Parsed) -> str:
    """Return runs/<task>-<dataset>-<method>-seed<seed>, from where the recipe lies."""
    parts = [*parsed.path.resolve().parent.parts[-2:], parsed.path.stem]
    return f"runs/{'-'.join(parts)}-seed{parsed.config.seed}"
