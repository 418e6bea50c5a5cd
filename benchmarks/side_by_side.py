"""Train students of CIFAR-10 side by side: on the same batches, with one pass of the teacher."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage import Classification, Distiller, FrozenTeacher, GradientCap, Teacher
from tutelage.core import Batch, Method, Output
from tutelage.engine.compiled import compile_networks

PADDING = 4
LEARNING_RATE = 0.05  # of the recipes, at their batch size
RECIPE_BATCH_SIZE = 64
WARMUP = 0.05  # share of the steps


class OnePass(Teacher):
    """A teacher that runs once for each batch, however many students ask.

    Args:
        teacher: records the layers of all methods.
    """

    def __init__(self, teacher: FrozenTeacher) -> None:
        self._teacher = teacher
        self._batch: Batch | None = None
        self._output = Output(None)

    def with_taps(self, layers: Sequence[str]) -> OnePass:
        """Return itself, which records the layers of all methods."""
        return self

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Return the outputs of this batch."""
        if batch is not self._batch:
            self._output = self._teacher(batch, inputs)
            self._batch = batch
        return self._output

    def models(self) -> Mapping[str, nn.Module]:
        """Return the teacher's network."""
        return self._teacher.models()


class DeviceImages:
    """Training images that stay on the device.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        batch_size: images in a batch; what is left over in an epoch is left out.
        seed: of order and augmentation.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self._generator = torch.Generator(images.device).manual_seed(seed)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self) -> Iterator[Batch]:
        """Give the batches of one epoch, in another order each time."""
        device = self.images.device
        order = torch.randperm(len(self.images), generator=self._generator, device=device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield Batch({"inputs": self._augmented(chosen), "labels": self.labels[chosen]})

    def _augmented(self, chosen: Tensor) -> Tensor:
        """Return images float32 in [0, 1], cropped from a padded frame and mirrored at random."""
        images = self.images[chosen]
        count, _, height, width = images.shape
        draws = torch.rand(3, count, generator=self._generator, device=images.device)
        top, left = (draws[:2] * (2 * PADDING + 1)).long()
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        columns = torch.where(draws[2, :, None] < 0.5, columns, columns.flip(1))
        padded = F.pad(images, (PADDING,) * 4).movedim(1, -1)
        items = torch.arange(count, device=images.device)[:, None, None]
        return padded[items, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).float() / 255


@dataclass
class Training:
    """One network in training.

    Attributes:
        distiller: student and method.
        cap: of the method's gradient.
        optimizer: of both.
        schedule: of the learning rate, by steps.
    """

    distiller: Distiller
    cap: GradientCap
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler

    @classmethod
    def of(
        cls,
        student: nn.Module,
        teacher: Teacher,
        method: Method,
        example: Batch,
        steps: int,
        is_compiled: bool = True,
    ) -> Training:
        """Set a student up.

        Args:
            student: on its device.
            teacher: of all students.
            method: what it learns by.
            example: a batch.
            steps: of the run.
            is_compiled: whether the student is compiled, which pays for itself in long runs.
        """
        student = method.build_student(student, teacher).to(example["inputs"].device)
        distiller = Distiller(student, teacher, method, Classification(num_classes=10))
        distiller.setup(example)
        rate = LEARNING_RATE * len(example["labels"]) / RECIPE_BATCH_SIZE
        optimizer = torch.optim.SGD(
            distiller.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=rate, total_steps=steps + 1, pct_start=WARMUP, cycle_momentum=False
        )
        if is_compiled:
            compile_networks(distiller.student)
        return cls(distiller, GradientCap(distiller), optimizer, schedule)

    def step(self, batch: Batch, progress: float) -> None:
        """Learn from one batch."""
        device = batch["inputs"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = self.cap(self.distiller(batch, progress))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


def train(trainings: Mapping[str, Training], data: DeviceImages, epochs: int) -> None:
    """Train networks side by side, each batch with one after the other."""
    for training in trainings.values():
        training.distiller.train()
    done, steps = 0, epochs * len(data)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        for batch in data.epoch():
            for training in trainings.values():
                training.step(batch, done / steps)
            done += 1
        if data.images.is_cuda:
            torch.cuda.synchronize()
        print(f"epoch {epoch} of {epochs}  {time.perf_counter() - start:.1f} s", flush=True)
