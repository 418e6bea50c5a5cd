"""CKA between all pairs of layers over mini-batches: update, merge, compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import torch
from torch import Tensor, distributed

from tutelage.core.distributed import (
    check_same_on_all_ranks,
    gather_numbers,
    is_distributed,
    sum_over_ranks,
)
from tutelage.errors import UserError
from tutelage.similarity._all_pairs import Sums, feature_sums, features_are_cheaper, gram_sums
from tutelage.similarity._checks import warn_undefined
from tutelage.similarity._cka_inputs import (
    Ids,
    Layers,
    Named,
    as_features,
    as_grams,
    check_finite,
    check_ids,
    check_layer_names,
    check_permutations,
    count_items,
    in_order,
)
from tutelage.similarity._cka_result import CKAResult, summary
from tutelage.similarity._cka_state import Counts, State
from tutelage.similarity._layer_gram import layer_grams, stacked

MIN_ITEMS = 4  # what the debiased estimator needs


class CKAMatrix:
    """Debiased linear CKA between all pairs of layers, accumulated over batches of the same items.

        CKA_ij = Σ_b <U(K_i), U(L_j)> / √(Σ_b <U(K_i), U(K_i)> · Σ_b <U(L_j), U(L_j)>)

    one ratio of sums over batches b, each HSIC₁ weighted by n_b (n_b - 3): the expectation of every
    sum is that of the whole data set, whatever the batch sizes (at least 4). The state is these
    sums, in float64, so that objects, passes and ranks are merged by adding. Batches should be
    shuffled, with the same order for both sides.

    Source: T. Nguyen, M. Raghu, S. Kornblith, ICLR 2021, equation 3 (minibatch CKA), with the
    weights of google-research/google-research@30adf0e
    `do_wide_and_deep_networks_learn_the_same_things/efficient_CKA.py`.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> matrix = CKAMatrix(left=["a", "b"], right=["c"])
    >>> for _ in range(8):
    ...     a, b = torch.randn(2, 16, 5)
    ...     matrix.update({"a": a, "b": b}, {"c": 2 * a + 100})
    >>> result = matrix.compute()
    >>> result.value[0, 0].item() > 0.9999, abs(result.value[1, 0].item()) < 0.2, result.samples
    (True, True, 128)

    Args:
        left: names of the layers of the left side, in the order of the rows.
        right: names of those of the right side; None compares the left layers with themselves.
        permutations: how many pairings to draw for the p-values; 0 for none. Each costs a product
            of all pairs.
        seed: of these pairings; give every rank another one.

    Raises:
        UserError: If a list is empty or names a layer twice, or permutations is no count.
    """

    def __init__(
        self,
        left: Sequence[str],
        right: Sequence[str] | None = None,
        *,
        permutations: int = 0,
        seed: int = 0,
    ) -> None:
        if isinstance(permutations, bool) or not isinstance(permutations, int) or permutations < 0:
            raise UserError(f"permutations is a whole number from 0 on, got {permutations!r}")
        self.left = check_layer_names(left, "left")
        self.right = None if right is None else check_layer_names(right, "right")
        check_permutations(permutations, seed)
        self.permutations = permutations
        self.seed = seed
        self.state = State.empty(len(self.left), self._num_right, permutations)

    @property
    def _num_right(self) -> int:
        return len(self.left if self.right is None else self.right)

    def __repr__(self) -> str:
        counts = self.state.counts
        return (
            f"CKAMatrix({len(self.left)} × {self._num_right} layers, "
            f"{counts.samples} samples in {counts.batches} batches)"
        )

    def update(
        self,
        left: Layers,
        right: Layers | None = None,
        ids: Ids | None = None,
        ids_right: Ids | None = None,
    ) -> None:
        """Add one batch of features; the features are not stored.

        The sums are formed in Gram or in feature space, whichever is cheaper for this batch. A
        batch of fewer than 4 items is skipped and counted.

        Args:
            left: features (n, ...) of every left layer: by name, or in the order of the names.
            right: those of the right layers for the same n items; None if there is no right side.
            ids: identifiers of the n items, for the hash that the result carries.
            ids_right: the identifiers that the right side came with, to be compared with `ids`.

        Raises:
            UserError: If a layer is missing, n differs, the ids of the two sides differ, or
                features are 1-D, empty, integer, NaN or infinite. The state is then as before.
        """
        named_left, named_right = self._sides(left, right)
        features_left = as_features(named_left)
        features_right = as_features(named_right)
        n = count_items([*features_left, *features_right])
        id_list = check_ids(ids, ids_right, n)
        if n < MIN_ITEMS:
            self._skip(n)
            return
        sums = self._feature_sums(
            [x for _, x in features_left], [x for _, x in features_right] or None
        )
        self._add(sums, n, id_list)

    def update_grams(
        self,
        left: Layers,
        right: Layers | None = None,
        ids: Ids | None = None,
        ids_right: Ids | None = None,
    ) -> None:
        """Add one batch of Gram matrices (n, n), made by `gram_of` in a forward hook for instance.

        Arguments and errors are those of `update`.

        >>> from tutelage.similarity import gram_of
        >>> matrix = CKAMatrix(["layer"])
        >>> matrix.update_grams({"layer": gram_of(torch.randn(8, 2))})
        >>> round(matrix.compute().value.item(), 6)
        1.0
        """
        named_left, named_right = self._sides(left, right)
        grams = [*as_grams(named_left), *as_grams(named_right)]
        n = count_items(grams)
        id_list = check_ids(ids, ids_right, n)
        if n < MIN_ITEMS:
            self._skip(n)
            return
        sums = gram_sums(stacked([k for _, k in grams]), len(self.left), self._orders(n))
        self._add(sums, n, id_list)

    def merge(self, other: CKAMatrix) -> None:
        """Add what another accumulator has seen, as if its batches had followed.

        Raises:
            UserError: If its layers, their order, or its number of permutations differ.
        """
        own_settings = (self.left, self.right, self.permutations)
        if own_settings != (other.left, other.right, other.permutations):
            raise UserError(
                "accumulators of different layers cannot be merged: "
                f"{self.left} × {self.right} with {self.permutations} permutations and "
                f"{other.left} × {other.right} with {other.permutations}"
            )
        self.state.merge(other.state)

    def across_ranks(self) -> CKAMatrix:
        """Return the merged accumulator of all ranks of `torch.distributed`, the same on each.

        Every rank must call it. This object keeps its own share; with one process the result is a
        copy.

        Raises:
            UserError: If the layers or the number of permutations differ between ranks.
        """
        merged = CKAMatrix(self.left, self.right, permutations=self.permutations, seed=self.seed)
        if not is_distributed():
            merged.state.merge(self.state)
            return merged
        check_same_on_all_ranks(repr((self.left, self.right, self.permutations)))
        counts = [Counts(*row) for row in gather_numbers(list(astuple(self.state.counts)))]
        # Groups are numbered as if the ranks had run one after the other.
        num_before = sum(rank.batches for rank in counts[: distributed.get_rank()])
        for name, value in self.state.shifted(num_before).items():
            merged.state.tensors()[name].copy_(sum_over_ranks(value))
        for rank in counts:
            merged.state.counts.add(rank)
        return merged

    def compute(self, confidence: float = 0.95) -> CKAResult:
        """Return the CKA of every pair so far; the state stays, so more batches may follow.

        A layer that never varied gives NaN cells, and a warning names it.

        Raises:
            UserError: If no batch of at least 4 items has been seen.
        """
        counts = self.state.counts
        if not 0 < confidence < 1:
            raise UserError(f"a confidence lies between 0 and 1, got {confidence}")
        if counts.batches == 0:
            raise UserError(
                "there is nothing to compute: no batch had the 4 items that the debiased CKA needs "
                f"({counts.skipped} shorter ones were skipped); use larger batches"
            )
        result = summary(self.state, self.left, self.right, confidence)
        if result.degenerate:
            warn_undefined("CKA", result.degenerate)
        return result

    def save(self, path: str | Path) -> None:
        """Write sums, layer names, counts, ids' hash and versions to one safetensors file."""
        from tutelage.similarity._cka_file import write

        settings = {
            "left": self.left,
            "right": self.right,
            "permutations": self.permutations,
            "seed": self.seed,
        }
        write(Path(path), self.state, settings)

    @classmethod
    def load(cls, path: str | Path) -> CKAMatrix:
        """Return a saved accumulator; it can be continued, merged and computed.

        Raises:
            UserError: If the file is missing, incomplete or not a saved accumulator.
        """
        from tutelage.similarity._cka_file import read

        state, settings = read(Path(path))
        matrix = cls(
            settings["left"],
            settings["right"],
            permutations=settings["permutations"],
            seed=settings["seed"],
        )
        matrix.state = state
        return matrix

    def _sides(self, left: Layers, right: Layers | None) -> tuple[Named, Named]:
        """Return both sides in the order of their names; the right one may be empty."""
        if self.right is None:
            if right is not None:
                raise UserError(
                    "this accumulator compares the left layers with themselves; give no right side"
                )
            return in_order(left, self.left, "left"), []
        if right is None:
            raise UserError("this accumulator has right layers; give their batch too")
        return in_order(left, self.left, "left"), in_order(right, self.right, "right")

    def _feature_sums(self, left: list[Tensor], right: list[Tensor] | None) -> Sums:
        n = len(left[0])
        orders = self._orders(n)
        widths_left = [x.shape[1] for x in left]
        widths_right = None if right is None else [x.shape[1] for x in right]
        if features_are_cheaper(n, widths_left, widths_right):
            sums = feature_sums(left, right, orders)
            if sums is not None:  # else too many digits have canceled
                return sums
        return gram_sums(layer_grams([*left, *(right or ())]), len(left), orders)

    def _orders(self, n: int) -> Tensor:
        """Return random row orders (permutations, n), others for every batch."""
        generator = torch.Generator().manual_seed((self.seed << 32) + self.state.counts.batches)
        orders = [torch.randperm(n, generator=generator) for _ in range(self.permutations)]
        return torch.stack(orders) if orders else torch.empty(0, n, dtype=torch.int64)

    def _add(self, sums: Sums, n: int, ids: list[object]) -> None:
        counts = self.state.counts
        # Before anything is added: a refused batch leaves the state as it was.
        check_finite(sums, self.left, self.right or (), counts.batches + counts.skipped)
        self.state.add(sums)
        batch = Counts(batches=1, samples=n)
        batch.add_ids(ids)
        counts.add(batch)

    def _skip(self, n: int) -> None:
        self.state.counts.add(Counts(skipped=1, skipped_samples=n))
