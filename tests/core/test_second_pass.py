from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import KD, RCKA, Classification, Distiller, FrozenTeacher, UserError
from tutelage.core import Method, Teachers
from tutelage.engine.checks.teacher import state_hash

SIDE = 4
NUM = SIDE**2  # as many items as patches
IMAGES = (torch.randn(NUM, 1, 16, 16), torch.arange(NUM) % 3)
VECTORS = (torch.randn(8, 4), torch.arange(8) % 3)


class Patches(nn.Module):
    """An encoder of patches, either (N, T, C) or (T, N, C)."""

    def __init__(self, batch_first: bool, width: int = 8) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patch = nn.Conv2d(1, width, SIDE, SIDE)
        layer = nn.TransformerEncoderLayer(width, 2, 16, 0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).permute(0, 2, 1)
        if not self.batch_first:
            patches = patches.transpose(0, 1)
        encoded = self.encoder(patches)
        logits: Tensor = self.head(encoded.mean(1 if self.batch_first else 0))
        return logits


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, training=True)


class Moving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.bn.train()
        logits: Tensor = self.head(self.bn(x))
        return logits


class Caching(nn.Linear):
    """Computes a table in the first pass, as positional encodings do."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("table", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.table.fill_(1.0)
        return super().forward(x) * self.table


def whole(student: nn.Module, teacher: nn.Module, method: Method | None = None) -> Distiller:
    task = Classification(num_classes=3)
    return Distiller(student, FrozenTeacher(teacher), method or KD(), task)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_time_first_is_seen_where_there_are_as_many_steps_as_items(role: str) -> None:
    networks = {name: Patches(batch_first=name != role) for name in ("student", "teacher")}
    method = RCKA(layer_pairs={"encoder": "encoder"})
    distiller = whole(networks["student"], networks["teacher"], method)
    message = rf"the {role}'s feature 'encoder' has the shape \(16, 15, 8\).*batch_first=True"
    with pytest.raises(UserError, match=message):
        distiller.setup(IMAGES)
    networks = {name: Patches(batch_first=True) for name in ("student", "teacher")}
    whole(networks["student"], networks["teacher"], RCKA(layer_pairs={"encoder": "encoder"})).setup(
        IMAGES
    )


class LastStep(nn.Module):
    """A recurrent network of sequences (T, N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x)[0][-1])
        return logits


def test_inputs_with_as_many_steps_as_items_may_be_time_first() -> None:
    whole(LastStep(), LastStep()).setup((torch.randn(8, 8, 4), VECTORS[1]))


class FixedSize(nn.Linear):
    """Takes batches of eight alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(8, 4))


def test_a_network_that_takes_one_size_of_batch_only_is_fine() -> None:
    whole(FixedSize(4, 3), nn.Linear(4, 3)).setup(VECTORS)
    whole(nn.Linear(4, 3), FixedSize(4, 3)).setup(VECTORS)
    whole(nn.Linear(4, 3), nn.Linear(4, 3)).setup((VECTORS[0][:1], VECTORS[1][:1]))


@pytest.mark.parametrize("size", [1, 8])
def test_a_teacher_that_draws_random_numbers_is_refused(size: int) -> None:
    batch = (VECTORS[0][:size].repeat(1, 16), VECTORS[1][:size])
    with pytest.raises(UserError, match=r"the teacher \(Noisy\) is not fixed.*self.training"):
        whole(nn.Linear(64, 3), Noisy(64, 3)).setup(batch)


def test_a_teacher_whose_buffers_change_is_refused_and_put_back() -> None:
    teacher = Moving()
    before = state_hash(teacher)
    with pytest.raises(UserError, match=r"\(Moving\) is not fixed: its buffer 'bn.running_mean'"):
        whole(nn.Linear(4, 3), teacher).setup(VECTORS)
    assert state_hash(teacher) == before


def test_one_of_several_teachers_is_named() -> None:
    teachers = Teachers({"a": FrozenTeacher(nn.Linear(4, 3)), "b": FrozenTeacher(Moving())})
    distiller = Distiller(nn.Linear(4, 3), teachers, KD(), Classification(num_classes=3))
    with pytest.raises(UserError, match=r"one of the teachers .*buffer 'b/bn.running_mean'"):
        distiller.setup(VECTORS)


def test_a_table_that_the_first_pass_fills_is_no_change() -> None:
    whole(nn.Linear(4, 3), Caching()).setup(VECTORS)


def test_the_second_pass_leaves_no_trace() -> None:
    def random_state_after(student: nn.Module, run: Any) -> Tensor:
        torch.manual_seed(3)
        run(student)
        return torch.get_rng_state()

    class Drawing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.randn(1)

    once = random_state_after(Drawing(4, 3), lambda student: student(VECTORS[0]))
    student = Drawing(4, 3)
    distiller = whole(student, nn.Linear(4, 3))
    assert torch.equal(random_state_after(student, lambda _: distiller.setup(VECTORS)), once)
