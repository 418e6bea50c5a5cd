"""A run that is killed and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.patience import Patience, exit_code
from tutelage.engine.run_folder import RunFolder

SCRIPT = """
import sys
from pathlib import Path
from tutelage import KD, FitNet, RCKA, CombinedMethod
from tutelage.engine import fit
from tests.helpers.runs import make_recipe
method = CombinedMethod([KD(), RCKA({"3": "3"}), FitNet({"0": "0"})])
recipe = make_recipe(method, Path(sys.argv[1]), epochs=12, ema_decay=0.9)
done = fit(recipe, sys.argv[2], resume="--resume" in sys.argv)
sys.exit(0 if done else 130)
"""


def start(teacher: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(teacher), str(out), *options]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
    )


def wait_for_epochs(out: Path, epochs: int) -> None:
    Patience().wait_until(
        lambda: len(RunFolder(out).records()) >= epochs, "the run made no progress"
    )


def assert_equal(first: Path, second: Path) -> None:
    a, b = (load_file(out / "student.safetensors") for out in (first, second))
    assert all(torch.equal(a[key], b[key]) for key in a)
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in RunFolder(first).records()]
    assert strip == [
        {k: v for k, v in r.items() if k != "seconds"} for r in RunFolder(second).records()
    ]
    one, two = (RunFolder(out).metrics() for out in (first, second))
    assert {k: v for k, v in one.items() if k != "seconds"} == {
        k: v for k, v in two.items() if k != "seconds"
    }


@pytest.fixture(scope="module")
def uninterrupted(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert exit_code(start(teacher_run, out)) == 0
    return out


def test_kill_9_and_resume_is_bit_equal(
    teacher_run: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(teacher_run, out)
    wait_for_epochs(out, 4)
    process.send_signal(signal.SIGKILL)
    assert exit_code(process) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    assert exit_code(start(teacher_run, out, "--resume")) == 0
    assert_equal(out, uninterrupted)


def test_ctrl_c_saves_and_exits_cleanly_in_mid_epoch(
    teacher_run: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(teacher_run, out)
    wait_for_epochs(out, 3)
    process.send_signal(signal.SIGINT)
    assert exit_code(process) == 130
    assert len(list((out / "checkpoints").iterdir())) == 2
    assert exit_code(start(teacher_run, out, "--resume")) == 0
    assert_equal(out, uninterrupted)
