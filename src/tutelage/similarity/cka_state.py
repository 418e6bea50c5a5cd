"""What a CKA accumulator keeps: sums that are added over batches, objects, ranks and passes, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.similarity.all_pairs import Sums

GROUPS = 32  # batches are dealt to so many groups, for the jackknife
WORD = 2**62  # ids are hashed to numbers below it


@dataclass
class Counts:
    """Counts of a run; `first` and `second` are the two words of the sum of the sample ids' hashes."""

    batches: int = 0
    samples: int = 0
    skipped: int = 0
    skipped_samples: int = 0
    identified: int = 0
    first: int = 0
    second: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of others."""
        self.batches += other.batches
        self.samples += other.samples
        self.skipped += other.skipped
        self.skipped_samples += other.skipped_samples
        self.identified += other.identified
        self.first = (self.first + other.first) % WORD
        self.second = (self.second + other.second) % WORD

    def add_ids(self, ids: Iterable[object]) -> None:
        """Add the ids of samples; the order does not matter, how often each occurs does.

        >>> one, two = Counts(), Counts()
        >>> one.add_ids(["a", "b"]), two.add_ids(["b", "a"])
        (None, None)
        >>> one == two
        True
        """
        for each in ids:
            digest = hashlib.blake2b(str(each).encode(), digest_size=16).digest()
            self.first = (self.first + int.from_bytes(digest[:8], "big")) % WORD
            self.second = (self.second + int.from_bytes(digest[8:], "big")) % WORD
            self.identified += 1

    def ids_hash(self) -> str | None:
        """Return the hash of all samples' ids, or None where some came without."""
        return f"{self.first:016x}{self.second:016x}" if 0 < self.identified == self.samples else None


@dataclass
class State:
    """Sums of one accumulator; batch b belongs to group b modulo `GROUPS`.

    Attributes:
        xy: (groups, L₁, L₂), sums of <U(K), U(L)>.
        xx, yy: (groups, L₁) and (groups, L₂), of the sides with themselves.
        null: (permutations, L₁, L₂), sums of xy with rows permuted inside each batch.
        counts: batches, samples, what was skipped, hash of the ids.
    """

    xy: Tensor
    xx: Tensor
    yy: Tensor
    null: Tensor
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def empty(cls, left: int, right: int, permutations: int) -> State:
        """Return zeros for so many layers."""
        shapes = (GROUPS, left, right), (GROUPS, left), (GROUPS, right), (permutations, left, right)
        xy, xx, yy, null = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
        return cls(xy, xx, yy, null)

    def add(self, sums: Sums) -> None:
        """Add one batch to the next group; it is counted elsewhere."""
        group = self.counts.batches % GROUPS
        self.xy[group] += sums.xy
        self.xx[group] += sums.xx
        self.yy[group] += sums.yy
        self.null += sums.null

    def merge(self, other: State) -> None:
        """Add another state as if its batches had followed these."""
        for mine, others in zip(self.tensors().values(), other.shifted(self.counts.batches).values(), strict=True):
            mine += others
        self.counts.add(other.counts)

    def shifted(self, batches: int) -> dict[str, Tensor]:
        """Return the tensors with the groups that batches have after `batches` others."""
        rolled = {name: value.roll(batches % GROUPS, 0) for name, value in self.tensors().items() if name != "null"}
        return {**rolled, "null": self.null}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {"xy": self.xy, "xx": self.xx, "yy": self.yy, "null": self.null}
