"""Run a teacher on the samples whose rows are not stored yet, and write them shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from tutelage.cache.compression import Compression, errors
from tutelage.cache.memory import outputs_of
from tutelage.cache.shards import Shards
from tutelage.cache.table import check_views
from tutelage.core import Batch, Task, Teacher
from tutelage.errors import UserError

KeyedBatches = Callable[[Sequence[tuple[int, int]]], Iterable[Batch]]
"""Gives the samples with some (view, position) keys in their order, on the teacher's device."""


class Filling:
    """Writes the missing shards of some outputs, with one pass over the samples that they need.

    Args:
        teacher: records the layers.
        task: says how a batch enters a network.
        num_samples: rows of a view.
        views: how many views there are.
    """

    def __init__(self, teacher: Teacher, task: Task, num_samples: int, views: int) -> None:
        self.teacher = teacher
        self.task = task
        self.num_samples = num_samples
        self.views = views

    @torch.no_grad()
    def run(
        self,
        batches: KeyedBatches,
        missing: Mapping[str, tuple[Shards, Compression, Sequence[int]]],
        is_shown: bool,
    ) -> None:
        """Compute and write shards.

        Args:
            batches: loads samples.
            missing: by name of the output, its files, how it is stored, and the shards to write.
            is_shown: whether to draw a bar, on a terminal.

        Raises:
            UserError: If the teacher gives NaN or infinity, or samples are augmented and there is
                one view.
        """
        rows = sorted(
            {
                row
                for shards, _, numbers in missing.values()
                for number in numbers
                for row in shards.rows(number)
            }
        )
        open_shards = {name: _OpenShards(*of_output) for name, of_output in missing.items()}
        keys = [divmod(row, self.num_samples) for row in rows]
        done = 0
        disable = None if is_shown else True
        with tqdm(total=len(rows), unit="sample", desc="teacher", disable=disable) as bar:
            for batch in batches(keys):
                if self.views == 1:
                    check_views(batch)
                count = len(batch.ids)
                outputs = outputs_of(self.teacher(batch, self.task.inputs(batch)), count)
                numbers = torch.tensor(rows[done : done + count])
                for name, shards in open_shards.items():
                    _refuse_non_finite(name, outputs[name], batch)
                    shards.add(numbers, outputs[name].cpu(), batch)
                done += count
                bar.update(count)


class _OpenShards:
    """The shards of one output that are being filled, from the lowest row to the highest."""

    def __init__(self, shards: Shards, compression: Compression, numbers: Sequence[int]) -> None:
        self.shards = shards
        self.compression = compression
        self.numbers = set(numbers)
        self.parts: dict[int, list[dict[str, Tensor]]] = {}

    def add(self, rows: Tensor, values: Tensor, batch: Batch) -> None:
        """Add the rows of a batch, and write the shards that are full.

        Args:
            rows: their numbers, ascending.
            values: of the output, (n, ...).
            batch: has ids and views.
        """
        of_row = rows // self.shards.per_shard
        for shard in sorted(set(of_row.tolist())):
            if shard not in self.numbers:
                continue
            chosen = of_row == shard
            part = {
                "values": values[chosen],
                "ids": batch.ids.cpu()[chosen],
                "views": batch.views.cpu()[chosen],
            }
            parts = self.parts.setdefault(shard, [])
            parts.append(part)
            if sum(len(part["ids"]) for part in parts) == len(self.shards.rows(shard)):
                self._write(shard, self.parts.pop(shard))

    def _write(self, shard: int, parts: Sequence[Mapping[str, Tensor]]) -> None:
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        values = joined.pop("values")
        packed = self.compression.pack(values)
        found = errors(values, self.compression.unpack(packed))
        self.shards.write(shard, {**packed, **joined}, found)


def _refuse_non_finite(name: str, values: Tensor, batch: Batch) -> None:
    if not values.is_floating_point() or bool(values.isfinite().all()):
        return
    wrong = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
    what = f"layer {name!r} of the teacher" if name else "teacher"
    raise UserError(
        f"the {what} gives NaN or infinity for the samples {batch.ids[wrong].tolist()[:8]}; check "
        "its weights"
    )
