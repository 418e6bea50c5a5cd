"""A teacher that runs once on every training sample and then answers from memory.

The teacher's forward pass is more than half of a training step, and without augmentation it gives
the same output in every epoch; with augmentation, if the first few views of each sample are
repeated. It runs before training, in a fixed order, so a run that is resumed finds the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.cache.table import MAX_BYTES, OutputTable, RowsInMemory, check_ids, check_views
from tutelage.core import Batch, Output, Task, Teacher
from tutelage.core._checks import refuse_rows
from tutelage.errors import UserError

OUTPUT = ""  # key of the logits beside the features; no layer has this address


class CachedTeacher(Teacher):
    """Logits and features of another teacher, looked up by the ids of a batch.

    It answers from memory once `with_taps` has filled it; before that it asks the teacher.

    Args:
        teacher: any teacher that gives logits.
        task: says how a batch enters a network.
        batches: gives every training sample once in each view, view by view in the same order, with
            ids, on the teacher's device; called each time that other layers are asked for.
        num_samples: number of training samples.
        views: how many views of each sample there are; with 1, samples are not augmented.
    """

    def __init__(
        self,
        teacher: Teacher,
        task: Task,
        batches: Callable[[], Iterable[Any]],
        num_samples: int,
        *,
        views: int = 1,
    ) -> None:
        self.teacher = teacher
        self.task = task
        self.batches = batches
        self.num_samples = num_samples
        self.views = views
        # The outputs by name, one row a sample and view, and one more of NaN for unknown samples.
        self._values: dict[str, Tensor] = {}
        self._table: OutputTable | None = None

    def with_taps(self, layers: Sequence[str]) -> CachedTeacher:
        """Return a teacher that holds these layers of all samples in memory.

        It runs the teacher once on every sample.

        Raises:
            UserError: If samples are augmented, if ids are missing or not unique, or if the outputs
                need more than 4 GiB.
        """
        cached = CachedTeacher(
            self.teacher, self.task, self.batches, self.num_samples, views=self.views
        )
        # The hooks are needed for the one pass only, and go with the tapped teacher.
        cached._fill(self.teacher.with_taps(layers))
        return cached

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return the cached outputs for this batch.

        Raises:
            UserError: If a sample is not in the cache. Looking would make an accelerator wait;
                there the outputs of such a sample are NaN.
        """
        if self._table is None:
            return self.teacher(batch, inputs, student)
        features = self._table.find(batch)
        output = features.pop(OUTPUT)
        return Output(output, features)

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks of the teacher behind the cache."""
        return self.teacher.models()

    def __repr__(self) -> str:
        return f"CachedTeacher({self.teacher})"

    def _fill(self, teacher: Teacher) -> None:
        """Run a teacher on every sample and store what it gave."""
        ids: list[Tensor] = []
        views: list[Tensor] = []
        total = self.views * self.num_samples
        start = 0
        for value in self.batches():
            batch = Batch.of(value)
            if self.views == 1:
                check_views(batch)
            stop = start + len(batch.ids)
            if stop > total:
                raise UserError(f"there are more than {self.num_samples} samples to cache")
            outputs = outputs_of(teacher(batch, self.task.inputs(batch)), len(batch.ids))
            if not self._values:
                self._values = self._allocate(outputs)
            for name, tensor in outputs.items():
                self._values[name][start:stop] = tensor
            ids.append(batch.ids)
            views.append(batch.views)
            start = stop
        self._table = self._index(ids, views)

    def _allocate(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return room for the outputs of all samples.

        Args:
            outputs: of the first batch, by name.
        """
        bytes_per_sample = sum(v[0].numel() * v.element_size() for v in outputs.values())
        num_rows = self.views * self.num_samples
        num_bytes = bytes_per_sample * num_rows
        if num_bytes > MAX_BYTES:
            raise UserError(
                f"caching the teacher's outputs of {num_rows} samples would take "
                f"{num_bytes / 2**30:.1f} GiB (at most {MAX_BYTES / 2**30:.0f}); "
                "set teacher.cache to none or disk, or use smaller layers"
            )
        values = {}
        for name, tensor in outputs.items():
            values[name] = tensor.new_empty((num_rows + 1, *tensor.shape[1:]))
            if tensor.is_floating_point():
                values[name][-1] = torch.nan
        return values

    def _index(self, ids: Sequence[Tensor], views: Sequence[Tensor]) -> OutputTable:
        """Return the table of all rows.

        Args:
            ids: of the samples in the order of the rows.
            views: of the samples.
        """
        all_ids = torch.cat(list(ids)) if ids else torch.zeros(0, dtype=torch.int64)
        if len(all_ids) != self.views * self.num_samples:
            raise UserError(
                f"expected {self.num_samples} samples with unique ids to cache, got "
                f"{len(set(all_ids.tolist()))} different ids; give every sample its own id"
            )
        by_view = all_ids.view(self.views, self.num_samples)
        check_ids(list(by_view))
        outputs = {name: RowsInMemory(values) for name, values in self._values.items()}
        return OutputTable(by_view[0], torch.cat(list(views)).view_as(by_view), outputs)


def outputs_of(output: Output, count: int) -> dict[str, Tensor]:
    """Return the logits and features of a batch by name, the logits under "".

    Args:
        output: of the teacher.
        count: number of items.

    Raises:
        UserError: If there are no logits, or a tensor does not have a row for each item.
    """
    outputs = {OUTPUT: _logits(output), **output.features}
    for name, tensor in outputs.items():
        what = f"the teacher's feature {name!r}" if name else "the teacher's output"
        refuse_rows(what, tensor.shape, [count])
    return outputs


def _logits(output: Output) -> Tensor:
    try:
        return output.logits
    except UserError as error:
        raise UserError(
            f"the teacher's outputs cannot be cached: {error}; set teacher.cache to none"
        ) from error
