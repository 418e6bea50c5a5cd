"""Folders of texts with judgments, and of interactions."""

from __future__ import annotations

from pathlib import Path

from tutelage.data import Beir, InteractionFiles
from tutelage.data._text import is_file
from tutelage.data.sets._interaction_lookup import FILES, has_users_and_items
from tutelage.errors import NotInstalledError, UserError
from tutelage.recipes.starter.found import Found
from tutelage.recipes.starter.images import tables_in

UNAMBIGUOUS = [pattern for pattern, known in FILES if known != "table"]


def is_beir(root: Path) -> bool:
    """Return whether a folder is in BEIR's layout."""
    return is_file(root / "corpus.jsonl") and is_file(root / "queries.jsonl")


def read_beir(root: Path) -> Found:
    """Read a folder of BEIR."""
    contents = Beir(str(root)).read()
    counts = {name: len(part.queries) for name, part in contents.parts.items()}
    facts = [f"documents: {len(contents.corpus)}; the items above are queries"]
    if "train" not in contents.parts:
        facts.append("there is no qrels/train.tsv: training queries are generated from documents")
    return Found(
        root=root,
        layout="texts in BEIR's layout",
        task="retrieval",
        data="Beir",
        arguments={"root": str(root)},
        remarks={"root": "corpus.jsonl, queries.jsonl and qrels/<part>.tsv"},
        counts=counts,
        facts=facts,
    )


def is_interactions(root: Path) -> bool:
    """Return whether there is a file of users and items."""
    if root.is_file():
        found = any(root.match(pattern) for pattern in UNAMBIGUOUS)
    else:
        found = any(any(root.glob(pattern)) for pattern in UNAMBIGUOUS)
    return found or bool(_user_item_tables(root))


def read_interactions(root: Path) -> Found:
    """Read users and items."""
    tables = _user_item_tables(root)
    place = root
    if root.is_dir() and not any(any(root.glob(pattern)) for pattern in UNAMBIGUOUS):
        if len(tables) != 1:
            raise UserError(
                f"{root} holds {len(tables)} tables of users and items; give one of them"
            )
        place = tables[0]
    data = InteractionFiles(str(place))
    split = data.split()
    return Found(
        root=place,
        layout="interactions of users and items",
        task="recommendation",
        data="InteractionFiles",
        arguments={"root": str(place), "min_user_items": 1, "holdout": 0.2},
        remarks={
            "min_user_items": "users with fewer items are left out",
            "holdout": "share of every user's items that is held out for validation and test",
        },
        counts={
            "train": len(split.train),
            "validation users": len(split.validation_users),
            "test users": len(split.test_users),
        },
        num_items=split.train.num_items,
        facts=[f"users: {split.train.num_users}; items: {split.train.num_items}"],
    )


def _user_item_tables(root: Path) -> list[Path]:
    from tutelage.data._tables import column_names

    found = []
    for path in tables_in(root):
        try:
            names = column_names(path)
        except NotInstalledError:
            raise
        except UserError:
            continue
        if has_users_and_items(names):
            found.append(path)
    return found
