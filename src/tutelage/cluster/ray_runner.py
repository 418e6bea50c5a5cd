"""Runs of a study as Ray tasks: each starts a process on a machine that has room for it.

A run whose worker, or machine, is gone is started again, where there is room, and goes on from its
checkpoint: Ray repeats the task, and all a run knows lies in its folder. So the folder is on
storage that all machines share.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tutelage.cluster.processes import INTERRUPTED, start_process
from tutelage.cluster.ray_session import check_on_every_node, living_nodes, most_of
from tutelage.cluster.shared_folders import SharedFolders
from tutelage.errors import UserError, reason

RETRIES = 5  # of one run whose worker is gone
POLL_SECONDS = 0.25
MISTAKE = 2
KILLED = -9
STARTED = "tutelage: runs on "  # how the output of each try begins


class RunEndedEarlyError(Exception):
    """A run was ended by its machine and not by the study, with an exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_in_worker(
    arguments: Sequence[str], folders: SharedFolders, output: Path, threads: int
) -> int:
    """Run `tutelage` from start to end, in a process that a Ray worker starts.

    Args:
        arguments: of the command.
        folders: that this machine has to see.
        output: file that what it prints is added to.
        threads: of its computations on CPUs.

    Returns:
        The exit code.

    Raises:
        RunEndedEarlyError: If a signal that is not the study's ended it, so that it can go on.
    """
    problem = folders.problem()
    if problem is not None:
        raise UserError(problem)
    with output.open("ab") as file:
        file.write(f"{STARTED}{socket.gethostname()}\n".encode())
        file.flush()
        process = start_process(arguments, file, threads, folders.working)
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # the study has cancelled this task
        process.send_signal(signal.SIGTERM)
        process.wait()
        return INTERRUPTED
    code = process.returncode
    if code == INTERRUPTED or code < 0:
        raise RunEndedEarlyError(code)
    return code


class RayRun:
    """A run that was given to Ray.

    Args:
        ray: the package.
        task: reference of its task.
        output: file of what it prints.
    """

    def __init__(self, ray: ModuleType, task: Any, output: Path) -> None:
        self._ray = ray
        self._task = task
        self._output = output
        self._code: int | None = None
        self._tries = 0

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None if it has not ended."""
        if self._code is None and self._ray.wait([self._task], timeout=0)[0]:
            self._code = self._result()
        return self._code

    def is_running(self) -> bool:
        """Return False while it waits for room, and after its end."""
        return self._code is None and bool(self._hosts())

    def news(self) -> list[str]:
        """Return on which machines it was started again since the last call."""
        hosts = self._hosts()
        known = max(1, self._tries)
        self._tries = len(hosts)
        return [
            f"its process or worker is gone; it goes on from its last checkpoint, on {host}"
            for host in hosts[known:]
        ]

    def stop(self) -> None:
        """Ask it to save and end; a task that waits for room ends at once."""
        self._ray.cancel(self._task, force=False)

    def kill(self) -> None:
        """End it at once."""
        self._ray.cancel(self._task, force=True)

    def _hosts(self) -> list[str]:
        """Return the machine of each try so far."""
        text = self._output.read_text(errors="replace")
        lines = text.splitlines()
        return [line.removeprefix(STARTED) for line in lines if line.startswith(STARTED)]

    def _result(self) -> int:
        errors = self._ray.exceptions
        try:
            return int(self._ray.get(self._task))
        except errors.TaskCancelledError:
            return INTERRUPTED
        except errors.RayTaskError as error:
            if isinstance(error.cause, RunEndedEarlyError):
                return error.cause.code
            cause = error.cause
            self._write(str(cause) if isinstance(cause, UserError) else reason(cause))
            return MISTAKE
        except errors.RayError as error:
            self._write(f"{RETRIES + 1} workers of this run are gone: {reason(error)}")
            return MISTAKE

    def _write(self, text: str) -> None:
        with self._output.open("a") as file:
            print(f"tutelage: {text}", file=file)


class RayRunner:
    """Starts runs on the machines of a Ray cluster.

    Args:
        ray: the package, connected.
        folders: those that every machine has to see.
        cpus: of each run.
        gpus: of each run, perhaps a part of one; None is 1 where a machine of the cluster has some.

    Raises:
        UserError: If no machine has as many, or one does not see the folders.
    """

    def __init__(
        self, ray: ModuleType, folders: SharedFolders, cpus: int, gpus: float | None
    ) -> None:
        nodes = living_nodes(ray)
        self._ray = ray
        self._folders = folders
        self._cpus = cpus
        self._gpus = (1.0 if most_of(nodes, "GPU") else 0.0) if gpus is None else gpus
        self._check_room(nodes)
        check_on_every_node(ray, nodes, folders.problem)
        self._run = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=RETRIES,
            retry_exceptions=[RunEndedEarlyError],
        )(run_in_worker)

    @property
    def parallel(self) -> None:
        """No limit: Ray starts a run when there is room."""
        return None

    def start(self, arguments: Sequence[str], output: Path) -> RayRun:
        """Give a run to Ray."""
        output = output.absolute()
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"")
        task = self._run.remote(list(arguments), self._folders, output, self._cpus)
        return RayRun(self._ray, task, output)

    def _check_room(self, nodes: list[dict[str, Any]]) -> None:
        for node in nodes:
            have = node["Resources"]
            if have.get("CPU", 0) >= self._cpus and have.get("GPU", 0) >= self._gpus:
                return
        raise UserError(
            f"no machine of the cluster has {self._cpus} CPUs and {self._gpus:g} GPUs for a run "
            f"(the largest have {most_of(nodes, 'CPU'):g} and {most_of(nodes, 'GPU'):g}); give "
            "a smaller --cpus-per-run or --gpus-per-run"
        )
