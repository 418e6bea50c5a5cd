"""What `tutelage doctor` looks at: packages, devices, folders, shipped recipes."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

PACKAGE = "tutelage"
OF_DEVELOPERS = ("dev", "all")  # the extras that gather others
EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")

# Task -> what of it needs which extra. What is not named here works without any.
TASK_NEEDS: dict[str, dict[str, str]] = {
    "classification": {"timm": "networks of timm, ViTs among them"},
    "detection": {"detection": "average precision"},
    "segmentation": {},
    "pose": {
        "detection": "average precision of COCO's poses",
        "timm": "deconv_pose from timm",
        "huggingface": "vitpose",
    },
    "retrieval": {"retrieval": "encoders of sentence-transformers, BM25, parquet"},
    "recommendation": {"recommendation": "parquet"},
}


def packages(names: Sequence[str]) -> dict[str, str | None]:
    """Return the installed version of each package, None for what is missing."""
    return {name: _version(name) for name in names}


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what this package needs, and what each of its extras needs."""
    base: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for line in metadata.requires(PACKAGE) or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        extra = EXTRA.search(line)
        if extra is None:
            if requirement.marker is None or requirement.marker.evaluate():
                base.append(requirement)
        elif extra[1] not in OF_DEVELOPERS:
            extras.setdefault(extra[1], []).append(requirement)
    return base, extras


def problem_of(requirement: Requirement) -> str | None:
    """Return what is wrong with the package that is installed, or None.

    >>> problem_of(Requirement("packaging>=1")) is None
    True
    >>> problem_of(Requirement("no-such-package>=2"))
    'no-such-package>=2 is missing'
    >>> problem_of(Requirement("packaging>=9999")).startswith("packaging ")
    True
    """
    version = _version(requirement.name)
    wanted = f"{requirement.name}{requirement.specifier}"
    if version is None:
        return f"{wanted} is missing"
    if not requirement.specifier.contains(Version(version), prereleases=True):
        return f"{requirement.name} {version} is installed, {wanted} is needed"
    return None


def problems_of(requirements: Sequence[Requirement]) -> list[str]:
    """Return what is wrong with the installed packages."""
    return [text for text in map(problem_of, requirements) if text is not None]


def device_report() -> dict[str, Any]:
    """Return the devices that training can take, and the threads of the CPU."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        gpus.append({"name": facts.name, "gib": round(facts.total_memory / 2**30, 1)})
    return {
        "chosen": _chosen_device(bool(gpus)),
        "gpus": gpus,
        "cores": _usable_cores(),
        "threads": torch.get_num_threads(),
        "cuda_build": torch.version.cuda,
    }


def folder_problems() -> dict[str, str | None]:
    """Return for each folder that is written to what is wrong with it, or None."""
    home = Path.home()
    cache = Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    torch_cache = Path(os.environ.get("TORCH_HOME", cache / "torch"))
    hub_cache = Path(os.environ.get("HF_HOME", cache / "huggingface"))
    folders = [Path("runs"), Path(tempfile.gettempdir()), torch_cache, hub_cache]
    return {str(folder): _problem_of_writing(folder) for folder in folders}


def recipe_problems(every: bool) -> tuple[int, int, dict[str, str]]:
    """Parse shipped recipes.

    Args:
        every: all of them, which takes half a minute, or the first of each folder.

    Returns:
        How many were read, how many there are, and what is wrong by name.
    """
    from tutelage.errors import reason
    from tutelage.recipes import parse_recipe
    from tutelage.recipes.shipped import shipped_names

    names = shipped_names()
    chosen = names if every else list({name.rpartition("/")[0]: name for name in names}.values())
    problems = {}
    for name in chosen:
        try:
            parse_recipe(name)
        except Exception as error:
            problems[name] = reason(error)
    return len(chosen), len(names), problems


def system() -> str:
    """Return Python and the system, in words."""
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Python {python} on {platform.system()} {platform.machine()}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _chosen_device(has_gpus: bool) -> str:
    """Return the device that Accelerate takes by default, or that the environment asks for."""
    import torch

    uses_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y")
    if uses_cpu:
        return "cpu (ACCELERATE_USE_CPU)"
    if has_gpus:
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: a container or a batch system may give fewer
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _problem_of_writing(folder: Path) -> str | None:
    """Write a file and remove it, in the folder or in the one that it would be made in."""
    absolute = folder.absolute()
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is no folder"
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            file.write(b"x")
    except OSError as error:
        return f"{existing} cannot be written ({error.strerror})"
    return None
