"""One thread in every test, for exact repeats, and a real teacher that is trained once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import make_recipe
from tutelage import Baseline
from tutelage.engine import fit


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def signals_arrive() -> Iterator[None]:
    """Let signals through that nohup, or a shell in the background, makes all children ignore."""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGHUP, hangup)
    signal.signal(signal.SIGINT, interrupt)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a teacher that knows its digits."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    recipe = make_recipe(Baseline(), None, width=16, epochs=3)
    recipe.num_labels = None
    metrics = fit(recipe, out)
    assert metrics is not None
    assert metrics["test"]["top1"] > 0.9
    return out
