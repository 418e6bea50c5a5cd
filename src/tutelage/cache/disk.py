"""A teacher whose outputs for every training sample lie in files, for all runs that need them.

They are kept in a folder of a name that depends on all that they depend on: the teacher's weights,
architecture and input statistics, the data and its augmentation, and how they are stored. Another
run with the same teacher and data reads them; what is missing, such as a further layer, is added.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed, nn

from tutelage.cache.compression import Compression, Dtype
from tutelage.cache.fill import Answer, Filling, KeyedBatches, answers
from tutelage.cache.memory import OUTPUT, outputs_of
from tutelage.cache.shards import SHARD_BYTES, Shards
from tutelage.cache.stored_rows import locked
from tutelage.cache.table import check_views
from tutelage.cache.table_files import load_table
from tutelage.core import Batch, Output, Task, Teacher
from tutelage.core.distributed import gather_numbers, is_distributed
from tutelage.errors import UserError
from tutelage.io import write_json

PROBES = 8  # samples that the teacher answers in every run, to be compared with what is stored
TOLERANCE = 2e-2  # of the largest value: half precision, or another machine than that of the files


Elsewhere: TypeAlias = (
    "Callable[[StoredTeacher, Sequence[str], Sequence[str], Sequence[tuple[int, int]]],"
    " Iterable[Answer]]"
)
"""Runs a teacher with some layers, and gives some of its outputs for some keys, in their order."""


@dataclass(frozen=True)
class StoredOutput:
    """What is stored of one output of the teacher.

    Attributes:
        shards: its files.
        compression: how it is stored.
        row_bytes: of one row in the files.
    """

    shards: Shards
    compression: Compression
    row_bytes: int


class StoredTeacher(Teacher):
    """Logits and features of another teacher, read from files; those missing are made first.

    In every run the teacher answers a few samples, which are compared with what is stored.

    Args:
        teacher: any teacher that gives logits.
        task: says how a batch enters a network.
        batches: loads samples by (view, position), on the teacher's device.
        num_samples: number of training samples.
        folder: of all caches; this one has a folder of its own in it.
        facts: what the outputs depend on, as JSON can hold it.
        views: how many views of each sample are stored; with 1, samples are not augmented.
        dtype: of stored values.
        top_k: how many logits of a sample are stored; None stores all.
        batch_size: of `batches`; the teacher is run on whole ones.
        elsewhere: runs the teacher in place of this process, if given.

    Attributes:
        folder: of the files.
        errors: what storing did to each output, see `compression.errors`.
    """

    def __init__(
        self,
        teacher: Teacher,
        task: Task,
        batches: KeyedBatches,
        num_samples: int,
        folder: Path,
        facts: Mapping[str, Any],
        *,
        views: int = 1,
        dtype: Dtype = "float32",
        top_k: int | None = None,
        batch_size: int = 1,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.teacher = teacher
        self.task = task
        self.batches = batches
        self.num_samples = num_samples
        self.facts = {**facts, "views": views, "dtype": dtype, "top_k": top_k}
        self.views = views
        self.dtype = dtype
        self.top_k = top_k
        self.batch_size = batch_size
        self.elsewhere = elsewhere
        described = json.dumps(self.facts, sort_keys=True)
        self.digest = hashlib.sha256(described.encode()).hexdigest()[:16]
        self.root = folder
        self.folder = folder / self.digest
        self.errors: dict[str, dict[str, float]] = {}
        self._stored_outputs: dict[str, StoredOutput] = {}
        self._table: Any = None

    def with_taps(self, layers: Sequence[str]) -> StoredTeacher:
        """Return a teacher that answers with these layers from the files.

        Raises:
            UserError: If samples are augmented and there is one view, if a file is damaged or of
                something else, if the teacher gives other outputs now than are stored, or if there
                is no room for them.
        """
        stored = StoredTeacher(
            self.teacher,
            self.task,
            self.batches,
            self.num_samples,
            self.root,
            {key: value for key, value in self.facts.items() if key not in OPTIONS},
            views=self.views,
            dtype=self.dtype,
            top_k=self.top_k,
            batch_size=self.batch_size,
            elsewhere=self.elsewhere,
        )
        stored._open(self.teacher.with_taps(layers), layers)
        return stored

    def answers(
        self, teacher: Teacher, names: Collection[str], keys: Sequence[tuple[int, int]]
    ) -> Iterator[Answer]:
        """Run the teacher on some samples.

        Args:
            teacher: this one's, with the layers.
            names: of the outputs to give.
            keys: (view, position) of the samples.

        Raises:
            UserError: If it gives NaN or infinity, or samples are augmented and there is one view.
        """
        batches = self.batches(keys)
        return answers(teacher, self.task, batches, names, is_augmented=self.views > 1)

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return the stored outputs for this batch.

        Raises:
            UserError: If a sample is not stored, or not in this view; see `OutputTable`.
        """
        if self._table is None:
            return self.teacher(batch, inputs, student)
        features = self._table.find(batch)
        return Output(features.pop(OUTPUT), features)

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks of the teacher behind the files."""
        return self.teacher.models()

    def files(self, output: str) -> list[Path]:
        """Return the files of an output; "" is the teacher's own, others are layers."""
        shards = self._stored_outputs[output].shards
        return [shards.path(number) for number in range(len(shards))]

    def __repr__(self) -> str:
        return f"StoredTeacher({self.teacher}, {self.folder})"

    def _open(self, teacher: Teacher, layers: Sequence[str]) -> None:
        rows = torch.linspace(0, self.views * self.num_samples - 1, PROBES).round().long()
        keys = [divmod(row, self.num_samples) for row in sorted(set(rows.tolist()))]
        probe = Batch.of(next(iter(self.batches(keys))))
        if self.views == 1:
            check_views(probe)
        with torch.no_grad():
            live = outputs_of(teacher(probe, self.task.inputs(probe)), len(probe.ids))
        outputs = {name: self._stored(name, values) for name, values in live.items()}
        self._stored_outputs = outputs
        if self._count_missing(outputs):
            self._fill(teacher, layers, outputs)
        self._table, self.errors = load_table(
            {name: (output.shards, output.compression) for name, output in outputs.items()},
            self.views,
            probe.ids.device,
        )
        self._check(probe, live)

    def _stored(self, name: str, values: Tensor) -> StoredOutput:
        compression = Compression(self.dtype, self.top_k if name == OUTPUT else None)
        packed = compression.pack(values)
        row_bytes = sum(part[0].numel() * part.element_size() for part in packed.values())
        row_bytes += 16  # id and view
        per_shard = max(1, min(SHARD_BYTES // row_bytes, self.num_samples))
        num_rows = self.views * self.num_samples
        shards = Shards(self.folder, self.digest, name, num_rows, per_shard)
        return StoredOutput(shards, compression, row_bytes)

    @staticmethod
    def _count_missing(outputs: Mapping[str, StoredOutput]) -> int:
        count = sum(len(output.shards.missing()) for output in outputs.values())
        # Another process may be writing: all ranks do the same.
        return max(row[0] for row in gather_numbers([count])) if is_distributed() else count

    def _fill(
        self, teacher: Teacher, layers: Sequence[str], outputs: Mapping[str, StoredOutput]
    ) -> None:
        rank = distributed.get_rank() if is_distributed() else 0
        world = distributed.get_world_size() if is_distributed() else 1
        if rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock") if rank == 0 else nullcontext():
            _wait()  # for the lock of the first rank
            missing = {name: output.shards.missing() for name, output in outputs.items()}
            _wait()  # nobody writes before all have looked
            if rank == 0:
                self._announce(outputs, missing)
            own = {
                name: (output.shards, output.compression, missing[name][rank::world])
                for name, output in outputs.items()
                if missing[name]
            }

            def ask(keys: Sequence[tuple[int, int]]) -> Iterable[Answer]:
                if self.elsewhere is None:
                    return self.answers(teacher, list(own), keys)
                return self.elsewhere(self, layers, list(own), keys)

            filling = Filling(self.num_samples, self.batch_size, self.views * self.num_samples)
            filling.run(ask, own, is_shown=rank == 0)
            if rank == 0:
                write_json(self.folder / "cache.json", self.facts)
            _wait()

    def _announce(
        self, outputs: Mapping[str, StoredOutput], missing: Mapping[str, Sequence[int]]
    ) -> None:
        """Say how much is about to be written, and refuse it if there is no room."""
        size = 0
        for name, numbers in missing.items():
            output = outputs[name]
            size += sum(len(output.shards.rows(n)) for n in numbers) * output.row_bytes
        free = shutil.disk_usage(self.folder).free
        names = ", ".join(name or "logits" for name, numbers in missing.items() if numbers)
        if size > free:
            raise UserError(
                f"the teacher's outputs ({names}) need {_mib(size)} in {self.folder}, where "
                f"{_mib(free)} are free; give another teacher.cache_dir, fewer layers or views, or "
                "teacher.cache_dtype: float16"
            )
        views = f" × {self.views} views" if self.views > 1 else ""
        print(
            f"storing the teacher's outputs ({names}) of {self.num_samples} samples{views}: "
            f"{_mib(size)} in {self.folder}",
            file=sys.stderr,
            flush=True,
        )

    def _check(self, probe: Batch, live: Mapping[str, Tensor]) -> None:
        """Compare what is stored with what the teacher gives now for a few samples."""
        for name, stored in self._table.find(probe).items():
            exact = live[name]
            if self.top_k is not None and name == OUTPUT:  # others than the largest are estimates
                largest = exact.argmax(1, keepdim=True)
                exact, stored = exact.gather(1, largest), stored.gather(1, largest)
            scale = float(exact.abs().max())
            apart = float((exact.double() - stored.double()).abs().max())
            if not apart <= TOLERANCE * scale:
                raise UserError(
                    f"{self.folder} holds other values of {name or 'the logits'} than the teacher "
                    f"gives now for some of its samples (by up to {apart:.3g}), so its data or the "
                    "code of the teacher has changed; remove the folder to make it anew"
                )


OPTIONS = ("views", "dtype", "top_k")


def _wait() -> None:
    if is_distributed():
        gather_numbers([0])


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
