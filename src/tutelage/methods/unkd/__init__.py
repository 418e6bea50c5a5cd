"""UnKD: rankings are transferred only inside groups of items of similar popularity."""

from __future__ import annotations

from tutelage.methods.unkd.pairs import allocate_pairs, pair_law
from tutelage.methods.unkd.unkd import UnKD, unkd_loss

__all__ = ["UnKD", "allocate_pairs", "pair_law", "unkd_loss"]
