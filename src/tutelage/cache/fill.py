"""Run a teacher on the samples whose rows are not stored yet, and write them shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Answer:
    """What a teacher gives for one batch, on the CPU.

    Attributes:
        ids: of the samples, (n,).
        views: of the samples, (n,).
        outputs: by name, (n, ...).
    """

    ids: Tensor
    views: Tensor
    outputs: Mapping[str, Tensor]


Answers = Callable[[Sequence[tuple[int, int]]], Iterable[Answer]]
"""Gives the teacher's answers for samples with some (view, position) keys, in their order."""


@torch.no_grad()
def answers(
    teacher: Teacher,
    task: Task,
    batches: Iterable[Batch],
    names: Collection[str],
    *,
    is_augmented: bool,
) -> Iterator[Answer]:
    """Run a teacher.

    Args:
        teacher: records the layers.
        task: says how a batch enters a network.
        batches: on the teacher's device.
        names: of the outputs to give.
        is_augmented: whether samples may have several views.

    Raises:
        UserError: If the teacher gives NaN or infinity, or samples are augmented and must not be.
    """
    for batch in batches:
        if not is_augmented:
            check_views(batch)
        given = outputs_of(teacher(batch, task.inputs(batch)), len(batch.ids))
        for name in names:
            _refuse_non_finite(name, given[name], batch)
        outputs = {name: given[name].cpu() for name in names}
        yield Answer(batch.ids.cpu(), batch.views.cpu(), outputs)


class Filling:
    """Writes the missing shards of some outputs, with one pass over the samples that they need.

    The teacher sees whole batches of a fixed division of all rows, since what a network gives for a
    sample can depend on the size of its batch by a rounding error. So the files are the same bytes
    however the work was interrupted or shared out.

    Args:
        num_samples: rows of a view.
        batch_size: of the division.
        num_rows: of all views.
    """

    def __init__(self, num_samples: int, batch_size: int, num_rows: int) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.num_rows = num_rows

    def run(
        self,
        ask: Answers,
        missing: Mapping[str, tuple[Shards, Compression, Sequence[int]]],
        is_shown: bool,
    ) -> None:
        """Write shards.

        Args:
            ask: gives the outputs that are missing.
            missing: by name of the output, its files, how it is stored, and the shards to write.
            is_shown: whether to draw a bar, on a terminal.

        Raises:
            UserError: As `answers`.
        """
        needed = {
            row // self.batch_size
            for shards, _, numbers in missing.values()
            for number in numbers
            for row in shards.rows(number)
        }
        rows = [row for number in sorted(needed) for row in self._rows_of_batch(number)]
        open_shards = {name: _OpenShards(*of_output) for name, of_output in missing.items()}
        keys = [divmod(row, self.num_samples) for row in rows]
        done = 0
        disable = None if is_shown else True
        with tqdm(total=len(rows), unit="sample", desc="teacher", disable=disable) as bar:
            for answer in ask(keys):
                count = len(answer.ids)
                numbers = torch.tensor(rows[done : done + count])
                for name, shards in open_shards.items():
                    shards.add(numbers, answer.outputs[name], answer)
                done += count
                bar.update(count)

    def _rows_of_batch(self, number: int) -> range:
        start = number * self.batch_size
        return range(start, min(start + self.batch_size, self.num_rows))


class _OpenShards:
    """The shards of one output that are being filled, from the lowest row to the highest."""

    def __init__(self, shards: Shards, compression: Compression, numbers: Sequence[int]) -> None:
        self.shards = shards
        self.compression = compression
        self.numbers = set(numbers)
        self.parts: dict[int, list[dict[str, Tensor]]] = {}

    def add(self, rows: Tensor, values: Tensor, answer: Answer) -> None:
        """Add the rows of a batch that are missing, and write the shards that are full.

        Args:
            rows: their numbers, ascending.
            values: of the output, (n, ...).
            answer: has ids and views.
        """
        of_row = rows // self.shards.per_shard
        for shard in sorted(set(of_row.tolist())):
            if shard not in self.numbers:
                continue
            chosen = of_row == shard
            part = {
                "values": values[chosen],
                "ids": answer.ids[chosen],
                "views": answer.views[chosen],
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
