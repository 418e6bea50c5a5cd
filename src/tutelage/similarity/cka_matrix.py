"""CKA between all pairs of layers over mini-batches: update, merge, compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed

from tutelage.errors import UserError
from tutelage.similarity.all_pairs import Sums, feature_sums, features_are_cheaper, gram_sums
from tutelage.similarity.checks import flat_rows, say_undefined
from tutelage.similarity.cka_inputs import Ids, Layers, gram_matrix, layer_names, ordered, same_count, same_ids
from tutelage.similarity.cka_ranks import alone, gathered, same_on_all_ranks, summed
from tutelage.similarity.cka_result import CKAResult, summary
from tutelage.similarity.cka_state import Counts, State
from tutelage.similarity.layer_gram import layer_grams, stacked


class CKAMatrix:
    """Debiased linear CKA between all pairs of layers, over any number of batches of the same items.

        CKA_ij = Σ_b <U(K_i), U(L_j)> / √(Σ_b <U(K_i), U(K_i)> · Σ_b <U(L_j), U(L_j)>)

    one ratio of sums over batches b, each HSIC₁ weighted by n_b (n_b - 3): the expectation of every sum is
    that of the whole data set, whatever the batch sizes (at least 4). State is these sums, in float64, so
    that objects, passes and ranks are merged by adding. Batches should be shuffled, with one order for both
    sides.

    Source: T. Nguyen, M. Raghu, S. Kornblith, ICLR 2021, equation 3 (minibatch CKA), with the weights of
    google-research/google-research@30adf0e `do_wide_and_deep_networks_learn_the_same_things/efficient_CKA.py`.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> matrix = CKAMatrix(left=["a", "b"], right=["c"])
    >>> for _ in range(8):
    ...     a, b = torch.randn(2, 16, 5)
    ...     matrix.update({"a": a, "b": b}, {"c": 2 * a + 100})
    >>> found = matrix.compute()
    >>> found.value[0, 0].item() > 0.9999, abs(found.value[1, 0].item()) < 0.2, found.samples
    (True, True, 128)

    Args:
        left: names of the layers of one side, in the order of the rows.
        right: those of the other side; None compares the left layers with themselves.
        permutations: how many pairings to draw for the p-values; 0 for none. Each costs a product of all pairs.
        seed: of these pairings; give every rank another one.

    Raises:
        UserError: a list is empty or names a layer twice.
    """

    def __init__(
        self, left: Sequence[str], right: Sequence[str] | None = None, *, permutations: int = 0, seed: int = 0
    ) -> None:
        self.left = layer_names(left, "left")
        self.right = None if right is None else layer_names(right, "right")
        self.permutations, self.seed = permutations, seed
        self.state = State.empty(len(self.left), len(self.left if right is None else right), permutations)

    def __repr__(self) -> str:
        counts = self.state.counts
        others = len(self.left if self.right is None else self.right)
        return f"CKAMatrix({len(self.left)} × {others} layers, {counts.samples} samples in {counts.batches} batches)"

    def update(
        self, left: Layers, right: Layers | None = None, ids: Ids | None = None, ids_right: Ids | None = None
    ) -> None:
        """Add one batch of features; nothing of them is kept.

        The Gram or the feature space is taken, whichever is cheaper for this batch. A batch of fewer than 4
        items is skipped and counted.

        Args:
            left: features (n, ...) of every left layer: by name, or in the order of the names.
            right: those of the right layers for the same n items; None if there is no right side.
            ids: identifiers of the n items, for the hash that the result carries.
            ids_right: the identifiers that the right side came with, to be compared with `ids`.

        Raises:
            UserError: a layer is missing, n differs, the ids of the two sides differ, or features are 1-D,
                empty, integer, NaN or infinite. The state is then as before.
        """
        one, two = ([(name, flat_rows(x, name).detach()) for name, x in side] for side in self._sides(left, right))
        n = same_count([*one, *two])
        known = same_ids(ids, ids_right, n)
        if n >= 4:
            self._add(self._from_features([x for _, x in one], [x for _, x in two] or None), n, known)
        else:
            self.state.counts.add(Counts(skipped=1, skipped_samples=n))

    def update_grams(
        self, left: Layers, right: Layers | None = None, ids: Ids | None = None, ids_right: Ids | None = None
    ) -> None:
        """Add one batch of Gram matrices (n, n), made by `gram_of` where the outputs arose; else as `update`.

        >>> from tutelage.similarity import gram_of
        >>> matrix = CKAMatrix(["layer"])
        >>> matrix.update_grams({"layer": gram_of(torch.randn(8, 2))})
        >>> round(matrix.compute().value.item(), 6)
        1.0
        """
        one, two = ([(name, gram_matrix(k, name).detach()) for name, k in side] for side in self._sides(left, right))
        n = same_count([*one, *two])
        known = same_ids(ids, ids_right, n)
        if n >= 4:
            grams = stacked([k for _, k in (*one, *two)])
            self._add(gram_sums(grams, len(one), self._orders(n)), n, known)
        else:
            self.state.counts.add(Counts(skipped=1, skipped_samples=n))

    def merge(self, other: CKAMatrix) -> None:
        """Add what another accumulator has seen, as if its batches had followed.

        Raises:
            UserError: its layers, their order, or its number of permutations differ.
        """
        if (self.left, self.right, self.permutations) != (other.left, other.right, other.permutations):
            raise UserError(
                f"accumulators of different layers cannot be merged: {self.left} × {self.right} with "
                f"{self.permutations} permutations and {other.left} × {other.right} with {other.permutations}"
            )
        self.state.merge(other.state)

    def across_ranks(self) -> CKAMatrix:
        """Return the merged accumulator of all processes of `torch.distributed`, the same on each of them.

        Every rank must call it. This object keeps its own share; with one process the result is a copy.

        Raises:
            UserError: the layers or the number of permutations differ between ranks.
        """
        merged = CKAMatrix(self.left, self.right, permutations=self.permutations, seed=self.seed)
        if alone():
            merged.state.merge(self.state)
            return merged
        same_on_all_ranks(repr((self.left, self.right, self.permutations)))
        counts = [Counts(*row) for row in gathered(list(vars(self.state.counts).values()))]
        before = sum(each.batches for each in counts[: distributed.get_rank()])
        for name, value in self.state.shifted(before).items():
            merged.state.tensors()[name].copy_(summed(value))
        for each in counts:
            merged.state.counts.add(each)
        return merged

    def compute(self, confidence: float = 0.95) -> CKAResult:
        """Return the CKA of every pair so far; the state stays, so more batches may follow.

        A layer that never varied gives NaN cells, and a warning names it.

        Raises:
            UserError: no batch of at least 4 items has been seen.
        """
        counts = self.state.counts
        if not 0 < confidence < 1:
            raise UserError(f"a confidence lies between 0 and 1, got {confidence}")
        if counts.batches == 0:
            raise UserError(
                f"there is nothing to compute: no batch had the 4 items that the debiased CKA needs "
                f"({counts.skipped} shorter ones were skipped); use larger batches"
            )
        found = summary(self.state, self.left, self.right, confidence)
        if found.degenerate:
            say_undefined("CKA", found.degenerate)
        return found

    def save(self, path: str | Path) -> None:
        """Write sums, layer names, counts, ids' hash and versions to one safetensors file, whole or not at all."""
        from tutelage.similarity.cka_file import write

        settings = {"left": self.left, "right": self.right, "permutations": self.permutations, "seed": self.seed}
        write(Path(path), self.state, settings)

    @classmethod
    def load(cls, path: str | Path) -> CKAMatrix:
        """Return a saved accumulator; it can be continued, merged and computed.

        Raises:
            UserError: the file is missing, incomplete or something else.
        """
        from tutelage.similarity.cka_file import read

        state, settings = read(Path(path))
        right = settings["right"]
        matrix = cls(settings["left"], right, permutations=settings["permutations"], seed=settings["seed"])
        matrix.state = state
        return matrix

    def _sides(self, left: Layers, right: Layers | None) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
        """Return both sides in the order of their names, with what messages call each layer."""
        if self.right is None:
            if right is not None:
                raise UserError("this accumulator compares the left layers with themselves; give no right side")
            return ordered(left, self.left, "left"), []
        if right is None:
            raise UserError("this accumulator has right layers; give their batch too")
        return ordered(left, self.left, "left"), ordered(right, self.right, "right")

    def _from_features(self, left: list[Tensor], right: list[Tensor] | None) -> Sums:
        orders = self._orders(len(left[0]))
        widths = [[x.shape[1] for x in side] for side in (left, right or ())]
        if features_are_cheaper(len(left[0]), widths[0], widths[1] or None):
            sums = feature_sums(left, right, orders)
            if sums is not None:
                return sums
        return gram_sums(layer_grams([*left, *(right or ())]), len(left), orders)

    def _orders(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed << 32) + self.state.counts.batches)
        orders = [torch.randperm(n, generator=generator) for _ in range(self.permutations)]
        return torch.stack(orders) if orders else torch.empty(0, n, dtype=torch.int64)

    def _add(self, sums: Sums, n: int, ids: list[object]) -> None:
        for side, names, own in (("left", self.left, sums.xx), ("right", self.right or (), sums.yy)):
            for name, value in zip(names, own.isfinite().tolist(), strict=False):
                if not value:
                    batch = self.state.counts.batches + self.state.counts.skipped
                    raise UserError(f"{side} layer {name!r} holds NaN or infinity in batch {batch}; look at its input")
        self.state.add(sums)
        seen = Counts(batches=1, samples=n)
        seen.add_ids(ids)
        self.state.counts.add(seen)
