"""A recipe may name the recipe of its teacher: trained once, on the same data, and reused by every run."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tutelage.cli.recipes import Parsed, parse_recipe
from tutelage.engine import fit
from tutelage.errors import UserError


def with_teacher(parsed: Parsed, teachers: str | Path, train: bool = True) -> bool:
    """Replace `teacher.recipe` by the network and the weights that it leads to, in place.

    Args:
        parsed: the recipe; its teacher section is filled in.
        teachers: folder of the teachers' runs, one for each recipe and data set.
        train: train the teacher if it is not there; otherwise leave its weights out.

    Returns:
        False when the run of the teacher was interrupted.
    """
    spec = parsed.config.teacher
    if spec is None or spec.recipe is None:
        return True
    source = parse_recipe(parsed.path.parent / spec.recipe)
    source.config.data = parsed.config.data
    text = source.text()
    name = (
        f"{source.path.resolve().parent.name}-{Path(spec.recipe).stem}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    )
    out = Path(teachers) / name
    if source.config.teacher is not None:
        raise UserError(f"{source.path} has a teacher of its own; train it by itself and give teacher.weights")
    if train and not (out / "metrics.json").exists():
        print(f"training the teacher once: {source.path} → {out}", file=sys.stderr)
        if fit(source.build(), out, resume=True, text=text) is None:
            return False
    student = source.config.student
    spec.network, spec.recipe = student.network, None
    spec.mean, spec.std = student.mean, student.std
    if spec.weights is None and (out / "metrics.json").exists():
        spec.weights = str(out)
    return True
