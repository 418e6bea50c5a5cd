"""Recommenders from elsewhere as teachers: two factor matrices in a file, or a score function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import UserError, reason
from tutelage.models.recommendation.interactions import Interactions

FORMAT = (
    "an .npz or .safetensors file with 'users' (U, d) and 'items' (I, d), as implicit's and "
    "LensKit's factors are saved"
)


class FactorTables(nn.Module):
    """The factors of a recommender that was trained elsewhere: implicit, LensKit, ALS.

    The file has `users` (U, d) and `items` (I, d). Beside it, `ids` may say which row belongs to
    which user and item: JSON with the lists `users` and `items` of outside ids in the order of the
    rows. The rows are then put into the order of the data, and users or items of the data that
    are missing are an error. Without `ids` the rows must be in the order of the data.

    Args:
        path: an .npz or .safetensors file.
        ids: a JSON file; None if the rows are in the order of the data.
    """

    users: Tensor
    items: Tensor

    def __init__(self, path: str, ids: str | None = None) -> None:
        super().__init__()
        self.path = path
        self.ids = ids
        tables = _read_tables(Path(path).expanduser())
        for name, table in tables.items():
            # Not in the state: the file is the state.
            self.register_buffer(name, table, persistent=False)

    def set_interactions(self, interactions: Interactions) -> None:
        """Put the rows into the order of the data.

        Raises:
            UserError: If the sizes differ, or a user or an item is missing.
        """
        known = None if self.ids is None else _read_ids(Path(self.ids).expanduser())
        for name, wanted in (("users", interactions.user_ids), ("items", interactions.item_ids)):
            table = getattr(self, name)
            if known is not None:
                rows = _rows_of(wanted, known[name], name, str(self.ids))
                if len(known[name]) != len(table):
                    raise UserError(
                        f"{self.ids} names {len(known[name])} {name}, but {self.path} has "
                        f"{len(table)} rows of {name}; give the ids of these rows"
                    )
                setattr(self, name, table[rows])
            elif len(table) != len(wanted):
                raise UserError(
                    f"{self.path} has {len(table)} {name}, but the data has {len(wanted)}; give "
                    "ids, a JSON file that says which row is whose"
                )
        self.ids = None  # the rows are in the data's order from now on

    def forward(self, users: Tensor) -> dict[str, Tensor]:
        """Return the factors of some users (B, d), and those of all items (I, d)."""
        return {"users": self.users[users], "items": self.items}


class ScoreFunction(nn.Module):
    """Any recommender as a teacher: a function of user numbers that gives the scores of all items.

    >>> teacher = ScoreFunction(lambda users: torch.zeros(len(users), 7))
    >>> teacher(torch.tensor([3, 1]))["scores"].shape
    torch.Size([2, 7])

    Args:
        score: takes user numbers (B,) int64 and returns scores (B, I), a tensor or an array, in the
            order of the data's items.
    """

    def __init__(self, score: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.score = score

    def forward(self, users: Tensor) -> dict[str, Tensor]:
        """Return the scores of all items for some users."""
        return {"scores": torch.as_tensor(self.score(users))}


def _read_tables(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing, or no file; the factors of a teacher are {FORMAT}")
    tables: Mapping[str, Any]
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                tables = {name: torch.from_numpy(file[name]) for name in file.files}
        else:
            from safetensors.torch import load_file

            tables = load_file(path)
    except Exception as error:  # a damaged file makes these readers raise nearly anything
        raise UserError(f"{path} cannot be read ({reason(error)}); it must be {FORMAT}") from error
    for name in ("users", "items"):
        table = tables.get(name)
        if table is None or table.ndim != 2 or not table.is_floating_point() or not table.numel():
            raise UserError(
                f"{path} has no matrix of floating-point numbers {name!r}; it must be {FORMAT}"
            )
        if not table.isfinite().all():
            row = int((~table.isfinite()).any(1).nonzero()[0])
            raise UserError(f"{path} holds NaN or infinity in row {row} of {name!r}")
    if tables["users"].shape[1] != tables["items"].shape[1]:
        raise UserError(
            f"{path} has users of {tables['users'].shape[1]} numbers and items of "
            f"{tables['items'].shape[1]}; both have the same dimension"
        )
    return {name: tables[name].float() for name in ("users", "items")}


def _read_ids(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        ids = {name: [str(entry) for entry in content[name]] for name in ("users", "items")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}); it must be JSON with the lists 'users' and "
            "'items'"
        ) from error
    return ids


def _rows_of(wanted: Sequence[str], known: Sequence[str], what: str, path: str) -> Tensor:
    place = {name: row for row, name in enumerate(known)}
    if len(place) != len(known):
        raise UserError(f"{path} names some of the {what} twice; every row has an id of its own")
    missing = [name for name in wanted if name not in place]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the data's {what}, such as {missing[0]!r}; train the "
            "teacher on the same data"
        )
    return torch.tensor([place[name] for name in wanted])
