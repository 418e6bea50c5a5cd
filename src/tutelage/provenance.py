"""The origin of a result: versions, commit, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "safetensors",
    "jsonargparse",
    "numpy",
)


def provenance() -> dict[str, Any]:
    """Return versions, commit, hardware and time, to be written beside every figure."""
    return {
        "tutelage": version(),
        "commit": _commit(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def version() -> str:
    """Return the version of this package."""
    return metadata.version("tutelage")


def _commit(folder: Path) -> str | None:
    """Return the commit, with `+changes` if tracked files differ from it; None outside git."""
    # Without locks, since `status` would otherwise write to .git and could meet a commit.
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
