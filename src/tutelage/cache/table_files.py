"""Read the table of a teacher's outputs from files: into memory, or mapped if it is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.cache.compression import Compression, Parts
from tutelage.cache.shards import Shards
from tutelage.cache.table import MAX_BYTES, OutputTable, Rows, RowsInMemory, check_ids

StoredAs = Mapping[str, tuple[Shards, Compression]]


class RowsInFiles:
    """Rows of one output, mapped into memory from its files and unpacked when they are needed.

    Args:
        parts: what each file holds.
        per_file: rows of a file.
        compression: how they are stored.
        device: of the rows that are returned.
    """

    def __init__(
        self,
        parts: Sequence[Parts],
        per_file: int,
        compression: Compression,
        device: torch.device,
    ) -> None:
        self.parts = parts
        self.per_file = per_file
        self.compression = compression
        self.device = device
        self.count = sum(len(part["values"]) for part in parts)

    def take(self, rows: Tensor) -> Tensor:
        """Return rows by their numbers; an accelerator waits for them."""
        rows = rows.cpu()
        known = rows.clamp(max=self.count - 1)
        files = known // self.per_file
        result: Tensor | None = None
        for file in sorted(set(files.tolist())):
            chosen = files == file
            inside = known[chosen] - file * self.per_file
            part = {name: tensor[inside] for name, tensor in self.parts[file].items()}
            values = self.compression.unpack(part)
            if result is None:
                result = values.new_empty((len(rows), *values.shape[1:]))
            result[chosen] = values
        assert result is not None
        if result.is_floating_point():
            result[rows == self.count] = torch.nan
        return result.to(self.device)


def load_table(
    outputs: StoredAs, views: int, device: torch.device
) -> tuple[OutputTable, dict[str, dict[str, float]]]:
    """Return the table of some outputs, and what storing did to each of them.

    Every file is read once and its checksum compared.

    Args:
        outputs: files, and how they are stored, by name.
        views: how many views there are.
        device: where batches will be.

    Raises:
        UserError: If a file is not whole, damaged or of something else.
    """
    rows: dict[str, Rows] = {}
    errors: dict[str, dict[str, float]] = {}
    ids = torch.zeros(0, dtype=torch.int64)
    of_view = ids
    left = MAX_BYTES
    for name, (shards, compression) in outputs.items():
        parts = []
        found = []
        for shard in range(len(shards)):
            tensors, error = shards.read(shard)
            parts.append(tensors)
            found.append(error)
        ids = torch.cat([part.pop("ids") for part in parts])
        of_view = torch.cat([part.pop("views") for part in parts])
        errors[name] = _over_all(found, [len(part["values"]) for part in parts])
        in_files = RowsInFiles(parts, shards.per_shard, compression, device)
        row = in_files.take(torch.zeros(1, dtype=torch.int64))
        size = row.numel() * row.element_size() * in_files.count
        if size <= left:
            left -= size
            rows[name] = RowsInMemory(_in_memory(in_files, row))
        else:
            rows[name] = in_files
    by_view = ids.view(views, -1)
    check_ids(list(by_view))
    table = OutputTable(by_view[0].to(device), of_view.view_as(by_view).to(device), rows)
    return table, errors


def _in_memory(rows: RowsInFiles, example: Tensor) -> Tensor:
    values = example.new_empty((rows.count + 1, *example.shape[1:]))
    start = 0
    for part in rows.parts:
        unpacked = rows.compression.unpack(part)
        values[start : start + len(unpacked)] = unpacked.to(rows.device)
        start += len(unpacked)
    if values.is_floating_point():
        values[-1] = torch.nan
    return values


def _over_all(errors: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Return the largest difference and the mean divergences over all files."""
    total = sum(counts)
    result = {}
    for name in errors[0]:
        values = [error[name] for error in errors]
        if name == "difference":
            result[name] = max(values)
        else:
            result[name] = sum(v * n for v, n in zip(values, counts, strict=True)) / total
    return result
