from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.runs import make_recipe
from tutelage import KD, RCKA, Classification, Network, Together, UserError
from tutelage.cache import Remembered
from tutelage.engine import fit

TASK = Classification(num_classes=3)


class Counting(nn.Sequential):
    """Counts the images it saw."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def batches(ids: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    images = torch.randn(len(ids), 8, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(len(ids), dtype=torch.int64)
    return list(zip(images.split(4), labels.split(4), ids.split(4), strict=True))


def test_it_answers_from_memory_what_the_network_would_say() -> None:
    net = Counting(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    given = batches(torch.tensor([9, 2, 5, 40, 7, 1]))
    teacher = Remembered(Network(net), TASK, lambda: given, 6).tapped(["0"])
    assert net.seen == 6
    mixed = tuple(torch.cat([a[1:3], b[:1]]) for a, b in zip(*given, strict=True))
    output = teacher(mixed, (mixed[0],))
    assert net.seen == 6
    assert torch.allclose(output.out, net(mixed[0]))
    assert torch.allclose(output.taps["0"], net[0](mixed[0]))
    assert teacher.module("2") is net[2]


def test_ids_must_be_there_and_differ() -> None:
    net = nn.Linear(8, 3)
    with pytest.raises(UserError, match="give every item an id of its own"):
        Remembered(Network(net), TASK, lambda: batches(torch.tensor([1, 1, 2, 3])), 4).tapped([])
    bare = [(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(UserError, match="the batch has no ids to remember"):
        Remembered(Network(net), TASK, lambda: bare, 4).tapped([])


def test_too_much_to_remember_is_refused_with_its_size() -> None:
    with pytest.raises(UserError, match=r"of 1000000000 items would take 11\.2 GiB"):
        Remembered(Network(nn.Linear(8, 3)), TASK, lambda: batches(torch.arange(4)), 10**9).tapped([])


def test_a_run_with_a_remembered_teacher_ends_like_one_with_a_live_teacher(teacher_run: Path, tmp_path: Path) -> None:
    for remember in (False, True):
        recipe = make_recipe(Together([KD(), RCKA(pairs={"3": "3"})]), teacher_run)
        assert recipe.teacher is not None
        recipe.teacher.remember = remember
        fit(recipe, tmp_path / str(remember))
    states = [load_file(tmp_path / name / "student.safetensors") for name in ("False", "True")]
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-4) for key in states[0])


def test_augmented_images_cannot_be_remembered(teacher_run: Path, tmp_path: Path) -> None:
    recipe = make_recipe(KD(), teacher_run)
    assert recipe.teacher is not None
    recipe.teacher.remember, recipe.data.augment = True, True
    with pytest.raises(UserError, match=r"needs images that stay the same; set data\.augment to false"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
