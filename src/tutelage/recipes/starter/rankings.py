"""Folders of texts with judgments, and of interactions."""

from __future__ import annotations

from pathlib import Path

from tutelage.data import Beir, InteractionFiles
from tutelage.data._text import is_file
from tutelage.data.sets._interaction_lookup import formats_of, has_users_and_items
from tutelage.errors import NotInstalledError, UserError
from tutelage.recipes.starter.found import Found
from tutelage.recipes.starter.images import tables_in


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
    return _has_known_name(root) or bool(_user_item_tables(root))


def read_interactions(root: Path) -> Found:
    """Read users and items."""
    tables = _user_item_tables(root)
    place = root
    if root.is_dir() and not _has_known_name(root):
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


def _has_known_name(root: Path) -> bool:
    """Return whether a file, or one of a folder's, has a name that only interactions have."""
    files = root.iterdir() if root.is_dir() else [root]
    return any(formats_of(path) not in ([], ["table"]) for path in files)


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
