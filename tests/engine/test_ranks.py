"""Two real processes over gloo end with the same student as one process."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.helpers.ranks import run_ranks

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tutelage import KD, RCKA, CombinedMethod
from tutelage.engine import fit, trainer
from tests.helpers.runs import make_recipe
method = CombinedMethod([KD(), RCKA({"3": "3"}, ramp=None)])
recipe = make_recipe(method, Path(sys.argv[1]), epochs=2, checkpoint="last")
recipe.student.model[6] = torch.nn.Identity()
recipe.student.model[1] = torch.nn.Identity()
fit(recipe, sys.argv[2])
out = f"{sys.argv[3]}/rank{os.environ.get('RANK', 0)}.safetensors"
save_file(recipe.student.model.state_dict(), out)
"""


def run(teacher: Path, folder: Path, processes: int) -> None:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    run_ranks(script, teacher, folder / "run", folder, processes=processes)


def test_two_ranks_hold_equal_weights_and_match_one_rank(teacher_run: Path, tmp_path: Path) -> None:
    run(teacher_run, tmp_path / "one", 1)
    run(teacher_run, tmp_path / "two", 2)
    one, first, second = (
        load_file(tmp_path / name)
        for name in ("one/rank0.safetensors", "two/rank0.safetensors", "two/rank1.safetensors")
    )
    for key in one:
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(first[key], one[key], atol=2e-4), key
