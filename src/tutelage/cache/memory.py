"""A teacher that runs once on every training sample and then answers from memory.

The teacher's forward pass is more than half of a training step, and without augmentation it gives
the same output in every epoch. It runs before training, in a fixed order, so a run that is resumed
finds the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Output, Task, Teacher
from tutelage.core._checks import refuse_rows
from tutelage.errors import UserError

MAX_BYTES = 4 * 2**30
OUTPUT = ""  # key of the logits beside the features; no layer has this address


class CachedTeacher(Teacher):
    """Logits and features of another teacher, looked up by the ids of a batch.

    It answers from memory once `with_taps` has filled it; before that it asks the teacher.

    Args:
        teacher: any teacher that gives logits.
        task: says how a batch enters a network.
        batches: gives every training sample once, with ids and without augmentation, on the
            teacher's device; called each time that other layers are asked for.
        num_samples: number of training samples.
    """

    def __init__(
        self,
        teacher: Teacher,
        task: Task,
        batches: Callable[[], Iterable[Any]],
        num_samples: int,
    ) -> None:
        self.teacher = teacher
        self.task = task
        self.batches = batches
        self.num_samples = num_samples
        # The outputs by name, one row a sample, and one more row of NaN for unknown samples.
        self._values: dict[str, Tensor] = {}
        # The row of every id; the last entry, for all ids beyond, is the row of NaN.
        self._rows: Tensor | None = None

    def with_taps(self, layers: Sequence[str]) -> CachedTeacher:
        """Return a teacher that holds these layers of all samples in memory.

        It runs the teacher once on every sample.

        Raises:
            UserError: If samples are augmented, if ids are missing or not unique, or if the outputs
                need more than 4 GiB.
        """
        cached = CachedTeacher(self.teacher, self.task, self.batches, self.num_samples)
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
        if self._rows is None:
            return self.teacher(batch, inputs, student)
        ids = batch.ids
        rows = self._rows[ids.clamp(-1, len(self._rows) - 1)]
        rows = torch.where(batch.views == 0, rows, self.num_samples)
        if rows.device.type == "cpu" and bool((rows == self.num_samples).any()):
            _check_views(batch)
            missing = ids[rows == self.num_samples].tolist()
            raise UserError(
                f"the teacher's outputs of the samples {missing[:8]} are not cached; "
                "train on the samples that the cache was filled with, or set teacher.cache to none"
            )
        features = {name: values[rows] for name, values in self._values.items()}
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
        start = 0
        for value in self.batches():
            batch = Batch.of(value)
            _check_views(batch)
            stop = start + len(batch.ids)
            if stop > self.num_samples:
                raise UserError(f"there are more than {self.num_samples} samples to cache")
            inputs = self.task.inputs(batch)
            output = teacher(batch, inputs)
            outputs = {OUTPUT: _logits(output), **output.features}
            for name, tensor in outputs.items():
                what = f"the teacher's feature {name!r}" if name else "the teacher's output"
                refuse_rows(what, tensor.shape, [len(batch.ids)])
            if not self._values:
                self._values = self._allocate(outputs)
            for name, tensor in outputs.items():
                self._values[name][start:stop] = tensor
            ids.append(batch.ids)
            start = stop
        self._rows = self._index(ids)

    def _allocate(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return room for the outputs of all samples.

        Args:
            outputs: of the first batch, by name.
        """
        bytes_per_sample = sum(v[0].numel() * v.element_size() for v in outputs.values())
        num_bytes = bytes_per_sample * self.num_samples
        if num_bytes > MAX_BYTES:
            raise UserError(
                f"caching the teacher's outputs of {self.num_samples} samples would take "
                f"{num_bytes / 2**30:.1f} GiB (at most {MAX_BYTES / 2**30:.0f}); "
                "set teacher.cache to none, or use smaller layers"
            )
        values = {}
        for name, tensor in outputs.items():
            values[name] = tensor.new_empty((self.num_samples + 1, *tensor.shape[1:]))
            if tensor.is_floating_point():
                values[name][-1] = torch.nan
        return values

    def _index(self, ids: Sequence[Tensor]) -> Tensor:
        """Return the table from ids to rows.

        Args:
            ids: of the samples in the order of the rows.
        """
        all_ids = torch.cat(list(ids)) if ids else torch.zeros(0, dtype=torch.int64)
        num_unique = len(set(all_ids.tolist()))
        if num_unique != self.num_samples:
            raise UserError(
                f"expected {self.num_samples} samples with unique ids to cache, got {num_unique} "
                "different ids; give every sample its own id"
            )
        rows = torch.full((int(all_ids.max()) + 2,), self.num_samples, device=all_ids.device)
        rows[all_ids] = torch.arange(self.num_samples, device=all_ids.device)
        return rows


def _logits(output: Output) -> Tensor:
    try:
        return output.logits
    except UserError as error:
        raise UserError(
            f"the teacher's outputs cannot be cached: {error}; set teacher.cache to none"
        ) from error


def _check_views(batch: Batch) -> None:
    if bool((batch.views != 0).any()):
        raise UserError(
            "teacher.cache: memory needs samples that stay the same in every epoch; "
            "set data.augment to false, or teacher.cache to none"
        )
