"""`tutelage methods`: list the available methods, and say with which one to start."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from typing import TYPE_CHECKING

from tutelage.cli._parser import Commands, add_command

if TYPE_CHECKING:
    from tutelage.core import Method

WIDTH = 80

# Task -> the method to start with, and what we measured; a test compares the figures with
# docs/results.md and docs/recommendation.md.
START = {
    "classification": (
        "DIST",
        "within the gradient cap it gained +2.9, +1.8, +1.9 and +0.8 points in four settings of "
        "Fashion-MNIST, first of all methods in two and third in the others",
    ),
    "detection": (
        "FitNet",
        "+1.16 [+0.37, +1.96] points of AP on trees in aerial photographs, 3 seeds",
    ),
    "segmentation": (
        "SSIM",
        "+2.38 [−0.55, +5.30] points of mIoU on MRI slices, 5 seeds: ahead on every seed, but "
        "not certain; FitNet +0.48 [−1.05, +2.01]",
    ),
    "pose": (
        None,
        "none is certain: OKDHP +0.5 [−0.9, +1.8] and FPD +0.1 [−0.4, +0.6] points of PCK on "
        "written digits; compare them with Baseline on your data",
    ),
    "retrieval": (
        "EmbedDistill",
        "nDCG@10 of 0.378 instead of 0.280 on Cranfield, and of 0.456 instead of 0.402 on WordNet "
        "with scores alone, where inherited documents lost",
    ),
    "recommendation": (
        "UnKD",
        "recall of unpopular items +0.0040 [+0.0030, +0.0050] on CiteULike, weight 0.1; that of "
        "all items as before, −0.0003 [−0.0023, +0.0017]",
    ),
}


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "methods",
        "list the methods: with which to start, and what each needs",
        examples="tutelage methods",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print with what to start, and every method with its class path, paper, tasks and needs."""
    import tutelage.methods
    from tutelage.core import Method

    print("Start with this (docs/results.md):")
    for task, (name, measured) in START.items():
        print(_fact(task, measured if name is None else f"{name}: {measured}", 15))
    print()
    for name in sorted(tutelage.methods.__all__, key=str.lower):
        value = getattr(tutelage.methods, name)
        if inspect.isclass(value) and issubclass(value, Method):
            print("\n".join(_describe(name, value)))
    return 0


def _describe(name: str, method: type[Method]) -> list[str]:
    summary = (inspect.getdoc(method) or "").splitlines()[0]
    info = method.info
    facts = {"class": f"tutelage.methods.{name}"}
    paper = method.__module__.split(".")[2]
    if not paper.startswith("_"):  # what papers share has no page
        facts["page"] = f"docs/methods/{paper}.md"
    facts |= {"paper": info.paper, "tasks": info.tasks, "needs": info.needs, "trains": info.trains}
    tasks = [task for task, (first, _) in START.items() if first == name]
    if tasks:
        facts["start"] = f"with this for {' and '.join(tasks)}"
    if info.caution:
        facts["caution"] = info.caution
    lines = [textwrap.fill(f"{name}  —  {summary}", WIDTH, subsequent_indent="    ")]
    return lines + [_fact(title, fact, 7) for title, fact in facts.items()]


def _fact(title: str, fact: str, width: int) -> str:
    """Return a line, or several, with a title before them."""
    line = f"    {title:<{width}} {fact}"
    indent = " " * (width + 5)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
