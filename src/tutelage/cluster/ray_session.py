"""The connection to Ray: a cluster, or one that is started on this machine for one command."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any, TextIO

from tutelage.errors import UserError, reason

# A cluster on one machine for one command; what is above that goes to disk.
OBJECT_STORE_BYTES = 2**28
CONNECT_SECONDS = 10.0


def import_ray() -> ModuleType:
    """Return the package.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--ray needs the package ray ({error}); pip install 'tutelage[ray]', on every machine "
            "of the cluster"
        ) from error
    module: ModuleType = ray
    return module


@contextmanager
def ray_session(address: str) -> Iterator[ModuleType]:
    """Have Ray within the block.

    Args:
        address: of a cluster, such as `10.0.0.1:6379`; "" takes the one that this machine is part
            of (or that RAY_ADDRESS names), and starts one on this machine if there is none. A
            session that this process has already is used, and stays.

    Raises:
        UserError: If Ray is not installed, or no cluster answers.
    """
    ray = import_ray()
    if address:
        _check_answer(address)
    if ray.is_initialized():
        with _to_stderr():
            yield ray
        return
    # Commands send nobody figures about their use; a cluster of one's own decides for itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(ray, address)
    finally:
        # Ray sets a handler that ends the process; ours lets the runs save.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    try:
        with _to_stderr():
            yield ray
    finally:
        ray.shutdown()


def _to_stderr() -> redirect_stdout[TextIO]:
    """Print to stderr: Ray says on stdout which tasks it repeats, amid a command's results."""
    return redirect_stdout(sys.stderr)


def _connect(ray: ModuleType, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address or "auto", **quiet)
    except Exception as error:
        if address or not isinstance(error, ConnectionError):
            raise UserError(
                f"Ray at {address or 'auto'} cannot be used: {reason(error)}"
            ) from error
        ray.init(
            address="local",
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )


def _check_answer(address: str) -> None:
    """Refuse an address where nobody answers; Ray would try for minutes and end the process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return  # such as `auto`
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}); give the address that `ray start "
            "--head` printed, or --ray alone for this machine"
        ) from error


def living_nodes(ray: ModuleType) -> list[dict[str, Any]]:
    """Return what Ray says of each machine of the cluster that is up and has CPUs."""
    nodes = ray.nodes()
    return [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def most_of(nodes: list[dict[str, Any]], resource: str) -> float:
    """Return how much of a resource the machine with most of it has.

    >>> most_of([{"Resources": {"CPU": 4.0}}, {"Resources": {"CPU": 2.0, "GPU": 1.0}}], "GPU")
    1.0
    """
    return max((float(node["Resources"].get(resource, 0)) for node in nodes), default=0.0)


def check_on_every_node(
    ray: ModuleType, nodes: Sequence[dict[str, Any]], problem: Callable[[], str | None]
) -> None:
    """Ask every machine whether something is wrong there.

    Args:
        ray: the package, connected.
        nodes: as Ray describes them.
        problem: returns a sentence, or None; it runs on each machine.

    Raises:
        UserError: With the first sentence, or if a machine lacks this package.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=1)(problem_here)
    questions = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        host = node["NodeManagerHostname"]
        questions[ask.options(scheduling_strategy=strategy).remote(problem)] = host
    for question, host in questions.items():
        try:
            answer = ray.get(question)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"the machine {host} of the cluster cannot run tutelage: "
                f"{reason(getattr(error, 'cause', None) or error)}; install the same version on "
                "every machine"
            ) from error
        if answer is not None:
            raise UserError(answer)


def problem_here(problem: Callable[[], str | None]) -> str | None:
    """Return what is wrong on this machine of a cluster, or None."""
    return problem()
