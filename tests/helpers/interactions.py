"""A small data set of users and items with two tastes, in RecBole's format."""

from __future__ import annotations

from pathlib import Path

import torch

NUM_USERS, NUM_ITEMS, ITEMS_PER_USER = 60, 80, 12


def write_interactions(folder: Path) -> Path:
    """Write `tiny.inter`: even users prefer even items, and low numbers are popular."""
    generator = torch.Generator().manual_seed(4)
    popularity = 1 / (5.0 + torch.arange(NUM_ITEMS))
    lines = ["user_id:token\titem_id:token\trating:float"]
    for user in range(NUM_USERS):
        taste = torch.where(torch.arange(NUM_ITEMS) % 2 == user % 2, 1.0, 0.02)
        items = torch.multinomial(popularity * taste, ITEMS_PER_USER, generator=generator)
        lines += [f"u{user}\ti{item}\t4" for item in items.tolist()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.inter"
    path.write_text("\n".join(lines) + "\n")
    return path
