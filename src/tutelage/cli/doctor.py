"""`tutelage doctor`: is this installation whole, and what is missing for which task?"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tutelage.cli._parser import Commands, add_command

SHOWN = ("torch", "torchvision", "accelerate", "timm", "transformers", "numpy")
EXAMPLES = """
tutelage doctor
tutelage doctor --json
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "doctor",
        "check this installation: versions, devices, extras, recipes",
        examples=EXAMPLES,
    )
    command.add_argument(
        "--all-recipes",
        action="store_true",
        help="parse all shipped recipes, not one of each folder",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print what was found; return 0 if all that is needed is there, else 1."""
    found = examine(arguments.all_recipes)
    print(json.dumps(found) if arguments.json else "\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def examine(every_recipe: bool = False) -> dict[str, Any]:
    """Return what is installed, and `problems`: sentences about what does not work.

    An extra that is missing is no problem.

    Args:
        every_recipe: parse all shipped recipes.
    """
    from tutelage import __version__
    from tutelage.cli import doctor_checks as checks

    base, extras = checks.requirements()
    problems = [
        f"{text}; pip install tutelage again" for text in map(checks.problem_of, base) if text
    ]
    missing: dict[str, list[str]] = {}
    for extra, needed in sorted(extras.items()):
        texts = [text for text in map(checks.problem_of, needed) if text]
        if texts:
            missing[extra] = texts
    try:
        devices = checks.device_report()
    except Exception as error:  # a broken torch is what this command is for
        devices = None
        problems.append(f"torch cannot be imported ({error}); install it again")
    folders = checks.folder_problems()
    problems += [f"{text}; choose another or mend its rights" for text in folders.values() if text]
    recipes: dict[str, Any] | None = None
    if devices is not None:
        read, known, wrong = checks.recipe_problems(every_recipe)
        recipes = {"read": read, "known": known, "problems": wrong}
        problems += [f"recipe {name}: {text}" for name, text in wrong.items()]
    return {
        "tutelage": __version__,
        "system": checks.system(),
        "packages": checks.packages(SHOWN),
        "devices": devices,
        "extras": missing,
        "tasks": {
            task: {extra: what for extra, what in needs.items() if missing.get(extra)}
            for task, needs in checks.TASK_NEEDS.items()
        },
        "folders": folders,
        "recipes": recipes,
        "problems": problems,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    versions = [f"{name} {version}" for name, version in found["packages"].items() if version]
    lines = [f"tutelage {found['tutelage']}, {found['system']}", f"  {', '.join(versions)}"]
    if found["devices"] is not None:
        lines += _device_lines(found["devices"])
    lines.append("extras")
    for extra, texts in found["extras"].items():
        text = f"{'; '.join(texts)}: pip install 'tutelage[{extra}]'" if texts else "there"
        lines.append(f"  {extra:<15} {text}")
    lines.append("tasks")
    for task, lacks in found["tasks"].items():
        parts = [f"without {what} (extra {extra})" for extra, what in lacks.items()]
        lines.append(f"  {task:<15} {'; '.join(parts) or 'complete'}")
    lines.append("folders")
    for folder, text in found["folders"].items():
        lines.append(f"  {folder}: {text or 'can be written'}")
    recipes = found["recipes"]
    if recipes is not None:
        right = recipes["read"] - len(recipes["problems"])
        lines.append(
            f"recipes: {right} of {recipes['read']} parse ({recipes['known']} are shipped)"
        )
    lines += [f"PROBLEM: {text}" for text in found["problems"]]
    lines.append("all that is needed is there" if not found["problems"] else "not whole, see above")
    return lines


def _device_lines(devices: dict[str, Any]) -> list[str]:
    gpus = [f"{gpu['name']} ({gpu['gib']} GiB)" for gpu in devices["gpus"]]
    build = f"CUDA {devices['cuda_build']}" if devices["cuda_build"] else "no CUDA"
    return [
        f"device: {devices['chosen']}; GPUs: {', '.join(gpus) or 'none'}; torch with {build}",
        f"  {devices['cores']} CPU core(s), {devices['threads']} thread(s) of torch",
    ]
