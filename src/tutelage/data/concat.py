"""Several image sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ImageSet
from tutelage.data.samples import Key


class ConcatSamples(ImageSet):
    """Images of several sets, each with its own augmentation; see `concat`.

    Args:
        parts: the sets.
        sources: (N, 2) int64: the set of every image, and the position there.
        labels: (N,) int64.
        ids: (N,) int64.
    """

    def __init__(
        self,
        parts: Sequence[ImageSet],
        sources: Tensor,
        labels: Tensor,
        ids: Tensor,
    ) -> None:
        super().__init__(labels, ids, parts[0].augment, parts[0].seed)
        self.parts = list(parts)
        self.sources = sources

    @property
    def reads_files(self) -> bool:
        """Whether a batch is read from files."""
        return any(part.reads_files for part in self.parts)

    @property
    def files_digest(self) -> str | None:
        """What changes with a file that is read."""
        return " ".join(str(part.files_digest) for part in self.parts)

    def before_loading(self) -> None:
        """Make ready what loading processes share of every set."""
        for part in self.parts:
            part.before_loading()

    def image(self, position: int) -> Tensor:
        """Return one image without augmentation."""
        number, local = self.sources[position].tolist()
        image: Tensor = self.parts[number].image(local)
        return image

    def input_rule(self) -> ImageInput:
        """Return the rule of the first set; the images of all have one shape."""
        return self.parts[0].input_rule()

    def subset(self, positions: Sequence[int] | Tensor) -> ConcatSamples:
        """Return the samples at these positions, augmented as here, without the streams."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return self._chosen(self.parts, chosen)

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ConcatSamples:
        """Return the samples at these positions, with another augmentation, without the streams."""
        parts = [part.subset_with(torch.arange(len(part)), augment, seed) for part in self.parts]
        return self._chosen(parts, positions)

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return the samples of every set as it loads them; `finish` brings them into order."""
        positions = torch.tensor([position for _, position in keys], dtype=torch.int64)
        sources = self.sources[positions].tolist()
        order: list[int] = []
        numbers: list[int] = []
        loaded: list[dict[str, Any]] = []
        for number, part in enumerate(self.parts):
            members = [i for i, source in enumerate(sources) if source[0] == number]
            if members:
                order += members
                numbers.append(number)
                loaded.append(dict(part.load([(keys[i][0], sources[i][1]) for i in members])))
        return Batch(
            {
                "inputs": loaded,
                "labels": self.labels[positions],
                "ids": self.ids[positions],
                "numbers": torch.tensor(numbers),
                "order": torch.tensor(order).argsort(),
            }
        )

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        """Return the batch on a device, where every set augments its own samples."""
        batches = [
            self.parts[number].finish(Batch(fields), device)
            for number, fields in zip(loaded["numbers"].tolist(), loaded.inputs, strict=True)
        ]
        joined = batches[0].cat(batches[1:])
        own = Batch({"inputs": loaded["order"], "labels": loaded.labels, "ids": loaded.ids})
        own = own.to(device, non_blocking=True)
        order = own.inputs
        return own.with_fields({"inputs": joined.inputs[order], "views": joined.views[order]})

    def _chosen(self, parts: Sequence[ImageSet], positions: Tensor) -> ConcatSamples:
        return ConcatSamples(
            parts=parts,
            sources=self.sources[positions],
            labels=self.labels[positions],
            ids=self.ids[positions],
        )


def concat(parts: Sequence[ImageSet], labels: Sequence[int | None]) -> ConcatSamples:
    """Return sets one after another, with unique ids: those of later sets are counted on.

    Args:
        parts: the sets.
        labels: for each set one label for all its images, or None to keep its own.
    """
    sources: list[Tensor] = []
    all_labels: list[Tensor] = []
    all_ids: list[Tensor] = []
    next_id = 0
    for number, (part, label) in enumerate(zip(parts, labels, strict=True)):
        positions = torch.arange(len(part))
        sources.append(torch.stack([torch.full_like(positions, number), positions], dim=1))
        if label is None:
            all_labels.append(part.labels)
        else:
            all_labels.append(torch.full_like(part.labels, label))
        all_ids.append(part.ids + next_id)
        if len(part) > 0:
            next_id = int(all_ids[-1].max()) + 1
    return ConcatSamples(
        parts=parts,
        sources=torch.cat(sources),
        labels=torch.cat(all_labels),
        ids=torch.cat(all_ids),
    )
