"""`tutelage predict`: the best items of users, from the tables of a finished run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tutelage.cli._parser import Commands, add_command

EXAMPLES = """
tutelage predict runs/citeulike-unkd --user 42
tutelage predict runs/citeulike-unkd --user 42,17 --top 20 --json
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "predict",
        "recommend items to users, by the tables of a finished run of a recommender",
        examples=EXAMPLES,
    )
    command.add_argument("source", metavar="RUN", help="folder of a finished run")
    command.add_argument("--user", required=True, help="ids of users as the data has them")
    command.add_argument("--top", type=int, default=10, help="items per user (default 10)")
    command.add_argument(
        "--with-known", action="store_true", help="also items that the user has in training"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print the ids of the best items with their scores; the data is not read."""
    from tutelage.tasks.recommendation.export import read_recommender

    recommender = read_recommender(Path(arguments.source))
    answers = {}
    for user in arguments.user.split(","):
        answers[user] = recommender.top(user, arguments.top, with_known=arguments.with_known)
    if arguments.json:
        print(json.dumps({user: [item for item, _ in best] for user, best in answers.items()}))
        return 0
    for user, best in answers.items():
        print(f"user {user}")
        for item, score in best:
            print(f"  {item}  {score:.4g}")
    return 0
