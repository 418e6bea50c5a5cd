"""`tutelage push`: share the student of a finished run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from tutelage.cli._parser import Commands, add_command

EXAMPLES = """
tutelage push runs/flowers ./shared
tutelage push runs/flowers me/flowers --license apache-2.0
tutelage push runs/study/kd/seed0 me/flowers
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "push",
        "share a finished run's student, on the Hugging Face Hub or not",
        examples=EXAMPLES,
    )
    command.add_argument("source", metavar="RUN", help="folder of a finished run")
    command.add_argument(
        "repo", metavar="REPO", help="owner/name on the Hub, or a folder such as ./flowers"
    )
    command.add_argument(
        "--license",
        default="unknown",
        help="the Hub's name of a license, such as apache-2.0 (default: unknown)",
    )
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Push, and print where it is, what it holds, and how to load it."""
    from tutelage.deploy.push import push

    pushed = push(
        arguments.source, arguments.repo, license=arguments.license, private=arguments.private
    )
    if arguments.json:
        print(json.dumps(asdict(pushed)))
        return 0
    print(f"{pushed.where}: {', '.join(pushed.files)}")
    if "ids.json" in pushed.files:
        print("ids.json holds the ids of your users and items: see that you may share them")
    if pushed.own_code:
        print(f"whoever loads it needs your code, too: {', '.join(pushed.own_code)}")
    if arguments.license == "unknown":
        print("the card says license: unknown; say which with --license")
    print(f"load it with tutelage.load({pushed.load!r})")
    return 0
