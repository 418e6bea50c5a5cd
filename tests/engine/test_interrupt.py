"""Every signal that asks to end lets the step be saved, in the test data's evaluation too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.patience import exit_code
from tests.helpers.runs import make_recipe
from tutelage import Baseline, cli
from tutelage.engine import fit, interrupt
from tutelage.engine.checkpoint import checkpoints
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.trainer import Trainer

pytestmark = pytest.mark.usefixtures("signals_arrive")

ROOT = Path(__file__).parents[2]
SIGNALS = [signal.Signals[name] for name in interrupt.SIGNALS]


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def run(out: Path) -> object:
    recipe = make_recipe(Baseline(), None, epochs=3, save_every=100)
    return fit(recipe, out, resume=True, text="a: 1\n")


def assert_goes_on(out: Path, step: int, whole: Path) -> None:
    assert [int(path.name) for path in checkpoints(out / "checkpoints")] == [step]
    assert run(out) is not None
    states = [load_file(folder / "student.safetensors") for folder in (out, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(out) is not None
    return out


@pytest.mark.parametrize(
    "signals",
    [*((number,) for number in SIGNALS), (signal.SIGINT,) * 2, (signal.SIGTERM,) * 5],
    ids=lambda signals: "-".join(number.name for number in signals),
)
def test_what_was_trained_is_kept(
    signals: tuple[signal.Signals, ...],
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Trainer._step

    def interrupted(trainer: Trainer, batch: object) -> None:
        step(trainer, batch)  # type: ignore[arg-type]
        if trainer.step == 6:
            send(*signals)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", interrupted)
        assert run(tmp_path / "run") is None
    assert_goes_on(tmp_path / "run", 6, whole)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["test_metrics", "_ship"])
def test_a_signal_after_the_last_epoch_costs_no_epoch(
    number: signal.Signals,
    where: str,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(import_module("tutelage.engine.fit"), where, lambda *_: send(number))
        assert run(tmp_path / "run") is None
    assert_goes_on(tmp_path / "run", 12, whole)


def test_a_signal_in_the_last_epoch_does_not_start_the_test(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer.validate

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer.step == trainer.total:
            send(signal.SIGTERM)
        return validate(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "validate", interrupted)
        assert run(tmp_path / "run") is None
    assert_goes_on(tmp_path / "run", 12, whole)


def test_ctrl_c_three_times_ends_a_step_that_hangs() -> None:
    with Interrupt() as asked:
        send(signal.SIGINT, signal.SIGINT)
        assert asked.requested
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as asked:
            send(signal.SIGHUP)
            assert not asked.requested
    finally:
        signal.signal(signal.SIGHUP, before)


GROUP = """
import os, signal, sys
from pathlib import Path
from tests.helpers.runs import make_recipe
from tutelage import Baseline
from tutelage.engine import fit
from tutelage.engine.trainer import Trainer
step = Trainer._step
def interrupted(trainer, batch):
    if trainer.step == 1:
        os.killpg(0, int(sys.argv[2]))
    step(trainer, batch)
Trainer._step = interrupted
recipe = make_recipe(Baseline(), None, num_workers=2)
assert fit(recipe, sys.argv[1], text="a: 1\\n") is None
assert [path.name for path in Path(sys.argv[1], "checkpoints").iterdir()] == ["000000002"]
"""


# The loading processes ignore all but SIGTERM, which is different for them.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loading_processes_leave_the_signal_of_a_group_to_the_run(
    number: signal.Signals, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", GROUP, str(tmp_path / "run"), str(int(number))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr


WORKER = """
import signal
from tutelage.engine import loader
loader.GRACE_SECONDS = 0.1
loader._leave_signals_to_the_run(0)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_a_loading_process_ends_when_the_run_tells_it() -> None:
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for number in SIGNALS:  # only SIGTERM does it
            process.send_signal(number)
        assert exit_code(process) == -signal.SIGALRM


def test_the_command_line_knows_the_same_signals() -> None:
    assert ("SIGINT", *cli.SIGNALS) == interrupt.SIGNALS
