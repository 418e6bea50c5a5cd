"""Several real processes over gloo, as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers.patience import exit_code

ROOT = Path(__file__).parents[2]


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
