"""Two real processes over gloo end with the same student as one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.patience import exit_code
from tests.helpers.ranks import ROOT, run_ranks
from tests.helpers.runs import make_net, make_recipe
from tutelage import Baseline, UserError
from tutelage.engine import fit
from tutelage.engine.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trainer import Trainer

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
    logs = [RunFolder(tmp_path / name / "run").records() for name in ("one", "two")]
    for single, double in zip(*logs, strict=True):
        assert double["terms"] == pytest.approx(single["terms"], rel=1e-3)


PIECES = """
import os
import sys
from dataclasses import replace
from pathlib import Path
import torch
from safetensors.torch import save_file
from tutelage import CKD, DIST, KD, RCKA, CombinedMethod, UserError
from tutelage.engine import fit
from tests.helpers.runs import make_recipe
teacher, out = Path(sys.argv[1]), Path(sys.argv[2])
several = os.environ.get("WORLD_SIZE", "1") != "1"
def recipe_of(batch_size):
    methods = [KD(), RCKA({"3": "3"}, ramp=None), CKD(), DIST()]
    train = {"batch_size": batch_size, "accumulate": 2 if several else 1}
    recipe = make_recipe(CombinedMethod(methods), teacher, epochs=2, checkpoint="last", **train)
    recipe.student.model[6] = torch.nn.Identity()
    recipe.student.model[1] = torch.nn.Identity()
    cache = {"cache": "disk", "cache_dir": str(out / "cache")}
    return replace(recipe, teacher=replace(recipe.teacher, **cache if several else {}))
if several:
    try:
        fit(recipe_of(50), out / "refused")
    except UserError as error:
        assert "does not divide among 4 processes" in str(error)
    assert os.environ["RANK"] != "0" or not (out / "refused").exists()
recipe = recipe_of(48)
fit(recipe, out / "run")
weights = recipe.student.model.state_dict()
save_file(weights, out / f"rank{os.environ.get('RANK', 0)}.safetensors")
"""


@pytest.mark.slow
def test_four_ranks_in_pieces_with_a_common_cache_match_one_rank(
    teacher_run: Path, tmp_path: Path
) -> None:
    for processes in (1, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        script = folder / "script.py"
        script.write_text(PIECES)
        run_ranks(script, teacher_run, folder, processes=processes)
    one = load_file(tmp_path / "1/rank0.safetensors")
    ranks = [load_file(tmp_path / f"4/rank{rank}.safetensors") for rank in range(4)]
    for key, value in one.items():
        assert all(torch.equal(rank[key], ranks[0][key]) for rank in ranks), key
        assert torch.allclose(ranks[0][key], value, atol=2e-4), key
    logs = [RunFolder(tmp_path / name / "run").records() for name in ("1", "4")]
    for single, several in zip(*logs, strict=True):
        assert several["terms"] == pytest.approx(single["terms"], rel=1e-3)


DYING = """
import os
import sys
from tutelage import Baseline
from tutelage.engine import fit
from tutelage.engine.trainer import Trainer
from tests.helpers.runs import make_recipe
step = Trainer._step
def dies(trainer, batch):
    if os.environ["RANK"] == "1" and trainer.step == 6:
        os._exit(9)
    step(trainer, batch)
Trainer._step = dies
try:
    fit(make_recipe(Baseline(), None, epochs=40), sys.argv[1])
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(2)
"""


def test_a_dead_rank_ends_the_others_with_a_sentence(tmp_path: Path) -> None:
    """As any launcher starts them; torchrun would end the others by itself."""
    script = tmp_path / "script.py"
    script.write_text(DYING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "run")],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    assert exit_code(processes[1]) == 9
    start = time.monotonic()
    assert exit_code(processes[0]) == 2
    assert time.monotonic() - start < 60
    assert processes[0].stderr is not None
    said = processes[0].stderr.read().decode()
    assert "UserError: another process of this run has ended, so this one ends too" in said
    for process in processes:
        assert process.stderr is not None
        process.stderr.close()
    assert (tmp_path / "run/log.jsonl").read_text().count("\n") == 1  # the first epoch is kept
    path, _ = newest_checkpoint(tmp_path / "run/checkpoints")
    assert path is not None


def test_sharded_students_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"set to FSDP, but training is data parallel \(DDP\) only"):
        fit(make_recipe(Baseline(), None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Nothing tells Accelerate that this machine has CPUs only, as for a user who calls torchrun.
AVERAGED = """
import os
import sys
os.environ.pop("ACCELERATE_USE_CPU")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from tutelage import Baseline
from tutelage.engine import fit
from tests.helpers.runs import make_recipe
recipe = make_recipe(Baseline(), None, epochs=3, ema_decay=0.5, checkpoint="last")
fit(recipe, sys.argv[1])
"""


def test_figures_of_two_ranks_are_those_of_the_shipped_weights(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(AVERAGED)
    run_ranks(script, tmp_path / "run", processes=2)
    assert [record["epoch"] for record in RunFolder(tmp_path / "run").records()] == [1, 2, 3]
    student = make_net(4)
    student.load_state_dict(load_file(tmp_path / "run/student.safetensors"))
    stated = json.loads((tmp_path / "run/student.json").read_text())
    mean, std = (torch.tensor(stated[key]).view(-1, 1, 1) for key in ("mean", "std"))
    test = make_recipe(Baseline(), None).data.splits(200, 0)["test"]
    batch = test.batch([(0, position) for position in range(len(test))])
    logits = student.eval()((batch.inputs - mean) / std)
    nll = torch.nn.functional.cross_entropy(logits, batch.labels)
    metrics = RunFolder(tmp_path / "run").metrics()["test"]
    assert metrics["num_samples"] == len(test)
    assert metrics["nll"] == pytest.approx(nll.item(), rel=1e-5)


def test_a_run_goes_on_on_another_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> object:
        return fit(make_recipe(Baseline(), None), tmp_path / "run", resume=True, text="a: 1\n")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stops", lambda trainer, interrupt: trainer.step == 6)
        assert run() is None
    path, _ = newest_checkpoint(tmp_path / "run/checkpoints")
    assert path is not None
    tensors, state = load_checkpoint(path)
    assert state["step"] == 6
    state["rng"] *= 3
    save_checkpoint(path.parent, 6, tensors, state)
    assert run() is not None
    assert "the checkpoint is of 3 process(es) and goes on on 1" in capsys.readouterr().err


def test_processes_that_do_not_know_of_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes were launched .* ACCELERATE_USE_CPU=true"):
        fit(make_recipe(Baseline(), None), tmp_path / "run")
    assert not (tmp_path / "run").exists()
