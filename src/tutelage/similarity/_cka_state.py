"""The state of a CKA accumulator: sums that are added over batches, objects, ranks and passes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.similarity._all_pairs import Sums

GROUPS = 32  # batches are distributed over so many groups, for the jackknife
WORD = 2**62  # ids are hashed to numbers below it; their sum fits in int64


@dataclass
class Counts:
    """Counts of what was accumulated.

    Attributes:
        batches: batches of at least 4 items.
        samples: items in them.
        skipped: batches of fewer than 4 items, which were left out.
        skipped_samples: items in them.
        identified: items that came with an id.
        first: first word of the sum of the ids' hashes.
        second: second word of it.
    """

    batches: int = 0
    samples: int = 0
    skipped: int = 0
    skipped_samples: int = 0
    identified: int = 0
    first: int = 0
    second: int = 0

    def add(self, other: Counts) -> None:
        """Add other counts to these."""
        self.batches += other.batches
        self.samples += other.samples
        self.skipped += other.skipped
        self.skipped_samples += other.skipped_samples
        self.identified += other.identified
        self.first = (self.first + other.first) % WORD
        self.second = (self.second + other.second) % WORD

    def add_ids(self, ids: Iterable[object]) -> None:
        """Add the ids of samples; their order does not matter, how often each occurs does.

        >>> forwards, backwards = Counts(), Counts()
        >>> forwards.add_ids(["a", "b"])
        >>> backwards.add_ids(["b", "a"])
        >>> forwards == backwards
        True
        """
        for sample_id in ids:
            digest = hashlib.blake2b(str(sample_id).encode(), digest_size=16).digest()
            self.first = (self.first + int.from_bytes(digest[:8], "big")) % WORD
            self.second = (self.second + int.from_bytes(digest[8:], "big")) % WORD
            self.identified += 1

    def ids_hash(self) -> str | None:
        """Return the hash of all samples' ids, or None if some sample came without an id."""
        if not 0 < self.identified == self.samples:
            return None
        return f"{self.first:016x}{self.second:016x}"


@dataclass
class State:
    """Sums of one accumulator; batch b belongs to group b modulo `GROUPS`.

    Attributes:
        xy: (groups, L₁, L₂), sums of <U(K), U(L)>.
        xx: (groups, L₁), sums of the left side with itself.
        yy: (groups, L₂), sums of the right side with itself.
        null: (permutations, L₁, L₂), sums of xy with rows permuted inside each batch.
        counts: batches, samples, what was skipped, hash of the ids.
    """

    xy: Tensor
    xx: Tensor
    yy: Tensor
    null: Tensor
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def empty(cls, num_left: int, num_right: int, permutations: int) -> State:
        """Return zeros for so many layers."""
        return cls(
            xy=torch.zeros(GROUPS, num_left, num_right, dtype=torch.float64),
            xx=torch.zeros(GROUPS, num_left, dtype=torch.float64),
            yy=torch.zeros(GROUPS, num_right, dtype=torch.float64),
            null=torch.zeros(permutations, num_left, num_right, dtype=torch.float64),
        )

    def add(self, sums: Sums) -> None:
        """Add the sums of one batch to the next group; the caller adds to the counts."""
        group = self.counts.batches % GROUPS
        self.xy[group] += sums.xy
        self.xx[group] += sums.xx
        self.yy[group] += sums.yy
        self.null += sums.null

    def merge(self, other: State) -> None:
        """Add another state as if its batches had followed these."""
        tensors = self.tensors()
        for name, value in other.shifted(self.counts.batches).items():
            tensors[name] += value
        self.counts.add(other.counts)

    def shifted(self, num_batches: int) -> dict[str, Tensor]:
        """Return the tensors with the groups that their batches have after `num_batches` others."""
        return {
            "xy": self.xy.roll(num_batches % GROUPS, 0),
            "xx": self.xx.roll(num_batches % GROUPS, 0),
            "yy": self.yy.roll(num_batches % GROUPS, 0),
            "null": self.null,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {"xy": self.xy, "xx": self.xx, "yy": self.yy, "null": self.null}
