"""The student without a method, which a search compares its trials with."""

from __future__ import annotations

from typing import Any

import yaml

from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trial import run_trial
from tutelage.io import read_json, write_json
from tutelage.recipes._yaml import write_yaml
from tutelage.recipes.read import ParsedRecipe, parse_content
from tutelage.tune.candidates import Candidate
from tutelage.tune.folder import TuneFolder

BASELINE = {"class_path": "tutelage.methods.Baseline"}
NO_CACHE = {"cache": "none", "cache_views": None, "cache_dtype": "float32", "cache_top_k": None}
NAME = "baseline"


def baseline_text(candidate: Candidate) -> str:
    """Return a recipe as text without its method, and with nothing of its teacher stored."""
    comment = f"# The student of {candidate.source.name} without a method, to compare with.\n"
    return comment + write_yaml(_without_method(candidate.source))


def baseline_score(folder: TuneFolder, candidate: Candidate) -> float:
    """Return the score of the student without a method, of an earlier command if there is one.

    Raises:
        UserError: If it cannot be trained.
        KeyboardInterrupt: If it was interrupted; it is saved.
    """
    known = folder.baseline_score
    if not known.exists():
        # With its teacher, which is checked first, as in a run.
        parsed = parse_content(_without_method(candidate.recipe), candidate.source.path)
        out = folder.trials / NAME
        with folder.printed_to(out.with_name(f"{NAME}.txt")):
            result = run_trial(parsed.build(), out, parsed.text(), lambda epoch, score: False)
        if result is None:
            raise KeyboardInterrupt
        write_json(known, {"score": result.score, "epochs": result.epochs})
    RunFolder(folder.trials / NAME).remove_checkpoints()
    return float(read_json(known, "remove it, and give the command again")["score"])


def _without_method(recipe: ParsedRecipe) -> dict[str, Any]:
    content: dict[str, Any] = {**yaml.safe_load(recipe.text()), "method": BASELINE}
    if content.get("teacher"):
        content["teacher"] = {**content["teacher"], **NO_CACHE}
    for key, teacher in (content.get("teachers") or {}).items():
        content["teachers"] = {**content["teachers"], key: {**teacher, **NO_CACHE}}
    return content
