from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from tutelage.engine.progress import Progress

TERMS = {"task": 1.25, "rcka/intra": 0.25, "rcka/inter": 0.5}


def read_all(screen: int) -> str:
    """Return what was written to a terminal whose other end is closed."""
    shown = b""
    try:
        while piece := os.read(screen, 65536):
            shown += piece
    except OSError:  # Linux: there is no more
        pass
    os.close(screen)
    return shown.decode()


def train(progress: Progress, epochs: int, steps: int) -> None:
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            progress.step()
        progress.epoch(epoch, {"top1": 0.5} if epoch % 2 == 0 else {}, TERMS)
    progress.close()


def test_without_a_terminal_there_is_a_line_an_epoch_its_figure_first_and_its_terms_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(Progress(12, 0, True, 4, "device x"), 4, 3)
    device, *lines = capsys.readouterr().err.splitlines()
    assert device == "device x"
    assert len(lines) == 4
    assert re.fullmatch(r"epoch 1/4  \d+ s left  \S+ step/s  task 1.25 rcka 0.75", lines[0])
    # Half of the epochs are over, so it is the whole run's time that is left.
    assert re.fullmatch(
        r"epoch 2/4  top1 0.5  \d+ s left  \S+ step/s  task 1.25 rcka 0.75", lines[1]
    )
    assert "  0 s left  " in lines[3]


def test_the_time_left_is_that_of_the_whole_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("tutelage.engine.progress.time.monotonic", lambda: clock[0])
    progress = Progress(40, 10, True, 4, "device x")  # resumed after the first epoch
    for _ in range(10):
        progress.step()
    clock[0] += 600  # steps and a validation
    progress.epoch(2, {"top1": 0.5}, TERMS)
    assert "  20 min left  " in capsys.readouterr().err


def test_other_ranks_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    train(Progress(12, 0, False, 4, "device x"), 4, 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [40, 70, 120])
def test_a_bar_begins_with_epoch_and_figure_and_ends_where_the_terminal_does(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    screen, other = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    many = {"task": 1.25, **{f"method{number}": 0.5 for number in range(9)}}
    with os.fdopen(other, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        progress = Progress(12, 0, True, 2, "device x")
        for epoch in (1, 2):
            for _ in range(6):
                progress.step()
            progress.epoch(epoch, {"top1": 0.8125} if epoch == 1 else {}, many)
        progress.close()
    shown = read_all(screen)
    assert shown.startswith("device x\r\n")
    last = shown.strip().split("\r")[-1]
    # An epoch without validation keeps the figure of the last one that had it.
    assert last.startswith("epoch 2/2 top1 0.8125 100%")
    assert len(last) <= columns
    assert ("task 1.25" in last) == (columns == 120)
