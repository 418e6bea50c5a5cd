"""Several real processes over gloo: as a user starts them, or forked, which takes a tenth."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from tests.helpers.patience import Patience, exit_code

ROOT = Path(__file__).parents[2]
_IMPORTED = ("accelerate", "timm", "tutelage.engine", "tutelage.methods", "tutelage.tasks")


def run_ranks(script: Path, *arguments: str | Path, processes: int = 2) -> None:
    """Run a script by torchrun, or plainly for one process, and make sure that it ends well."""
    launch = []
    if processes > 1:
        # On a busy machine the launcher's own 60 seconds for a connection can be too few.
        launch = ["-m", "torch.distributed.run", "--standalone", "--rdzv-conf=read_timeout=1800"]
        launch.append(f"--nproc_per_node={processes}")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, *launch, str(script), *map(str, arguments)]
    with tempfile.TemporaryFile() as output:  # a pipe that is full would stop the process
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = exit_code(process)
        finally:
            if process.poll() is None:  # with its ranks
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        assert code == 0, output.read().decode(errors="replace")[-3000:]


def fork_ranks(script: Path, *arguments: str | Path, processes: int = 2) -> None:
    """Run a script as ranks that are forked from a process which has imported torch already.

    They are what torchrun starts (processes of their own, with its variables), without the
    seconds in which a launcher and each rank import the same modules.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(rank) for rank in range(processes)]
        called = str(script), [str(argument) for argument in arguments]
        ranks = [
            context.Process(target=_be_rank, args=(rank, processes, port, output, *called))
            for rank, output in enumerate(outputs)
        ]
        for rank in ranks:
            rank.start()
        try:
            for rank in ranks:
                Patience().wait_until(lambda rank=rank: not rank.is_alive(), "a rank does not end")
        finally:
            for rank in ranks:
                rank.kill()
                rank.join()
        said = "\n".join(output.read_text(errors="replace")[-3000:] for output in outputs)
        assert [rank.exitcode for rank in ranks] == [0] * processes, said


def _be_rank(
    rank: int, processes: int, port: int, output: Path, script: str, arguments: list[str]
) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(1)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
