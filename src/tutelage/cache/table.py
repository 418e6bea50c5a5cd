"""The outputs of a teacher, one row a sample and view, looked up by the ids of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.errors import UserError

MAX_BYTES = 4 * 2**30  # of outputs in memory


class Rows(Protocol):
    """Stored rows of one output."""

    def take(self, rows: Tensor) -> Tensor:
        """Return rows by their numbers; that behind the last one is of NaN."""
        ...


class RowsInMemory:
    """Rows in one tensor.

    Args:
        values: the rows, and behind them one of NaN for samples that are not stored.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def take(self, rows: Tensor) -> Tensor:
        """Return rows by their numbers."""
        return self.values[rows]


class OutputTable:
    """Finds the stored outputs of the samples and views of a batch.

    Args:
        ids: int64 (N,), of the samples; all different.
        views: int64 (E, N), what augmentation made of each sample in each stored pass.
        outputs: E · N rows by name of the output, pass by pass.

    Attributes:
        positions: int64, the sample of every id; the last entry, for all ids beyond, is N.

    Raises:
        UserError: If two samples have the same id.
    """

    def __init__(self, ids: Tensor, views: Tensor, outputs: Mapping[str, Rows]) -> None:
        self.count = len(ids)
        num_unique = len(set(ids.tolist()))
        if num_unique != self.count:
            raise UserError(
                f"expected {self.count} samples with unique ids to cache, got {num_unique} "
                "different ids; give every sample its own id"
            )
        self.outputs = outputs
        largest = int(ids.max()) if self.count else -1
        self.positions = torch.full((largest + 2,), self.count, device=ids.device)
        self.positions[ids] = torch.arange(self.count, device=ids.device)
        self._num_rows = views.numel()
        # A sample that is not stored has a view that no batch has.
        self._views = torch.cat([views, views.new_full((len(views), 1), -1)], 1)

    def find(self, batch: Batch) -> dict[str, Tensor]:
        """Return the stored outputs of a batch by name.

        Raises:
            UserError: If a sample is not stored, or not in this view. Looking would make an
                accelerator wait; there the outputs of such a sample are NaN.
        """
        ids = batch.ids
        positions = self.positions[ids.clamp(-1, len(self.positions) - 1)]
        matches = self._views[:, positions] == batch.views
        rows = matches.int().argmax(0) * self.count + positions
        is_stored = matches.any(0)
        rows = torch.where(is_stored, rows, self._num_rows)
        if rows.device.type == "cpu" and not bool(is_stored.all()):
            self._refuse(batch, positions, is_stored)
        return {name: values.take(rows) for name, values in self.outputs.items()}

    def _refuse(self, batch: Batch, positions: Tensor, is_stored: Tensor) -> None:
        missing = batch.ids[positions == self.count].tolist()
        if missing:
            raise UserError(
                f"the teacher's outputs of the samples {missing[:8]} are not cached; "
                "train on the samples that the cache was filled with, or set teacher.cache to none"
            )
        if bool((self._views <= 0).all()):
            refuse_views()
        views = sorted(set(batch.views[~is_stored].tolist()))
        raise UserError(
            f"the teacher's outputs of the views {views[:4]} are not cached; let the data repeat "
            "the first views (teacher.cache_views), or set teacher.cache to none"
        )


def check_views(batch: Batch) -> None:
    """Raise if the samples of a batch are augmented.

    Raises:
        UserError: If so.
    """
    if bool((batch.views != 0).any()):
        refuse_views()


def refuse_views() -> None:
    """Raise because samples are augmented and only one view of them is stored.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "teacher.cache needs samples that stay the same in every epoch; set data.augment to "
        "false, or teacher.cache_views to a number of augmentations that are repeated, or "
        "teacher.cache to none"
    )


def check_ids(ids: Sequence[Tensor]) -> None:
    """Raise unless every pass over the samples gives them in the same order.

    Raises:
        UserError: If not.
    """
    if any(not torch.equal(other, ids[0]) for other in ids[1:]):
        raise UserError(
            "the samples come in another order in each view; let a position always be one sample"
        )
