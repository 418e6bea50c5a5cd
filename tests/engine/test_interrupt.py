"""Every signal that asks to end lets the step be saved, in the test data's evaluation too."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.runs import make_recipe
from tutelage import Baseline
from tutelage.engine import fit
from tutelage.engine.checkpoint import checkpoints
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.trainer import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


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
@pytest.mark.parametrize("where", ["_test_metrics", "_ship"])
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
    with Interrupt() as interrupt:
        send(signal.SIGINT, signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            send(signal.SIGHUP)
            assert not interrupt.requested
    finally:
        signal.signal(signal.SIGHUP, before)
