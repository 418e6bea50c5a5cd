"""A folder of one's own and the command line, as in tests/cli, and one Ray for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.cli.conftest import here, refuse, run, teacher

__all__ = ["here", "refuse", "run", "teacher"]


@pytest.fixture(scope="session")
def two_workers() -> Iterator[ModuleType]:
    """Have Ray on this machine with room for two workers."""
    ray = pytest.importorskip("ray")
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    signal.signal(signal.SIGTERM, handler)  # Ray has set its own
    yield ray
    ray.shutdown()
