from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.helpers.runs import make_recipe
from tutelage import KD, RCKA, Classification, CombinedMethod, FrozenTeacher, UserError
from tutelage.cache import CachedTeacher
from tutelage.core import Batch, Teachers
from tutelage.engine import fit

TASK = Classification(num_classes=3)


class Counting(nn.Sequential):
    """Counts the images it saw."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def network() -> Counting:
    return Counting(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


def batches(ids: Tensor) -> list[Batch]:
    images = torch.randn(len(ids), 8, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(len(ids), dtype=torch.int64)
    parts = zip(images.split(4), labels.split(4), ids.split(4), strict=True)
    return [Batch.of(part) for part in parts]


def subset(batch: Batch, rows: slice) -> Batch:
    return Batch({name: value[rows] for name, value in batch.items()})


def test_it_answers_from_memory_what_the_network_would_say() -> None:
    net = network()
    stored = batches(torch.tensor([9, 2, 5, 40, 7, 1]))
    teacher = CachedTeacher(FrozenTeacher(net), TASK, lambda: stored, 6).with_taps(["0"])
    assert net.seen == 6
    mixed = subset(stored[0], slice(1, 3)).cat([subset(stored[1], slice(0, 1))])
    output = teacher(mixed, (mixed.inputs,))
    assert net.seen == 6
    assert torch.allclose(output.output, net(mixed.inputs))
    assert list(output.features) == ["0"]
    assert torch.allclose(output.feature("0"), net[0](mixed.inputs))
    assert teacher.module("2") is net[2]
    assert teacher.models() == {"teacher": net}


def test_a_tuple_with_ids_is_a_batch() -> None:
    net = network()
    batch = (torch.randn(2, 8), torch.zeros(2, dtype=torch.int64), torch.tensor([3, 0]))
    teacher = CachedTeacher(FrozenTeacher(net), TASK, lambda: [batch], 2).with_taps([])
    expected = net(batch[0])
    assert torch.allclose(teacher(Batch.of(batch), (batch[0],)).output, expected)


def test_several_teachers_are_cached_too() -> None:
    nets = network(), network()
    stored = batches(torch.arange(6))
    teachers = Teachers({"a": FrozenTeacher(nets[0]), "b": FrozenTeacher(nets[1])})
    cached = CachedTeacher(teachers, TASK, lambda: stored, 6).with_taps(["b/0"])
    output = cached(stored[1], (stored[1].inputs,))
    expected = torch.stack([net(stored[1].inputs) for net in nets]).mean(0)
    assert torch.allclose(output.output, expected)
    assert torch.allclose(output.feature("b/0"), nets[1][0](stored[1].inputs))
    assert cached.models() == {"a": nets[0], "b": nets[1]}
    assert cached.module("b/2") is nets[1][2]


def test_ids_must_be_there_and_differ() -> None:
    net = nn.Linear(8, 3)
    with pytest.raises(
        UserError, match=r"4 samples with unique ids .* 3 .*; give every sample its"
    ):
        CachedTeacher(
            FrozenTeacher(net), TASK, lambda: batches(torch.tensor([1, 1, 2, 3])), 4
        ).with_taps([])
    for ids in (torch.arange(5), torch.arange(9)):
        with pytest.raises(UserError, match="there are more than 4 samples"):
            CachedTeacher(FrozenTeacher(net), TASK, lambda ids=ids: batches(ids), 4).with_taps([])
    bare = [(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(UserError, match="the batch has no ids, by which a teacher's outputs are"):
        CachedTeacher(FrozenTeacher(net), TASK, lambda: bare, 4).with_taps([])


@pytest.mark.parametrize("strange", [3, 6, 8, 10**9, -1, -7])
def test_a_sample_that_is_not_cached_is_refused(strange: int) -> None:
    stored = batches(torch.tensor([7, 0, 1, 2, 4, 5]))
    teacher = CachedTeacher(FrozenTeacher(network()), TASK, lambda: stored, 6).with_taps([])
    batch = stored[0].with_fields({"ids": torch.tensor([7, 0, strange, 2])})
    message = rf"of the samples \[{strange}\] are not cached; .* or set teacher.cache to none"
    with pytest.raises(UserError, match=message):
        teacher(batch, (batch.inputs,))


def test_a_sample_that_is_not_cached_has_a_row_of_nan() -> None:
    """An accelerator does not look whether all samples are cached: NaN stops the run there."""
    stored = batches(torch.tensor([7, 0, 1, 2, 4, 5]))
    teacher = CachedTeacher(FrozenTeacher(network()), TASK, lambda: stored, 6).with_taps(["0"])
    for name in ("", "0"):
        assert teacher._values[name][-1].isnan().all()
        assert teacher._values[name][:-1].isfinite().all()
    assert teacher._table is not None
    assert teacher._table.positions.tolist() == [1, 2, 3, 6, 4, 5, 6, 0, 6]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_with_nan_for_a_sample_that_is_not_cached() -> None:
    stored = [batch.to("cuda") for batch in batches(torch.tensor([7, 0, 1, 2, 4, 5]))]
    teacher = CachedTeacher(FrozenTeacher(network()), TASK, lambda: stored, 6).with_taps(["0"])
    ids = torch.tensor([7, 3, 10**9, -5], device="cuda")
    output = teacher(stored[0].with_fields({"ids": ids}), (stored[0].inputs,))
    for value in (output.output, output.feature("0")):
        assert value.isnan().all(1).tolist() == [False, True, True, True]
        assert value[0].isfinite().all()


def test_a_teacher_without_logits_cannot_be_cached() -> None:
    class Boxes(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return list(images)

    cached = CachedTeacher(FrozenTeacher(Boxes()), TASK, lambda: batches(torch.arange(4)), 4)
    with pytest.raises(UserError, match=r"the teacher gives a list .*; set teacher.cache to none"):
        cached.with_taps([])


def test_too_much_to_cache_is_refused_with_its_size() -> None:
    message = r"of 1000000000 samples would take 11\.2 GiB \(at most 4\); set teacher.cache to none"
    with pytest.raises(UserError, match=message):
        CachedTeacher(
            FrozenTeacher(nn.Linear(8, 3)), TASK, lambda: batches(torch.arange(4)), 10**9
        ).with_taps([])


def test_a_run_with_a_cached_teacher_ends_like_one_with_a_live_teacher(
    teacher_run: Path, tmp_path: Path
) -> None:
    for cache in ("none", "memory"):
        method = CombinedMethod([KD(), RCKA(layer_pairs={"3": "3"})])
        recipe = make_recipe(method, teacher_run)
        assert recipe.teacher is not None
        recipe.teacher.cache = cache
        fit(recipe, tmp_path / cache)
    states = [load_file(tmp_path / name / "student.safetensors") for name in ("none", "memory")]
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-4) for key in states[0])


def test_augmented_samples_cannot_be_cached() -> None:
    stored = batches(torch.arange(4))
    views = stored[0].with_fields({"views": torch.tensor([0, 0, 5, 0])})
    message = r"needs samples that stay the same .*; set data\.augment to false, or teacher\.cache"
    cached = CachedTeacher(FrozenTeacher(network()), TASK, lambda: [views], 4)
    with pytest.raises(UserError, match=message):
        cached.with_taps([])
    cached.batches = lambda: stored
    with pytest.raises(UserError, match=message):  # cached without, trained with augmentation
        cached.with_taps([])(views, (views.inputs,))


def test_a_run_with_augmented_samples_and_a_cache_is_refused(
    teacher_run: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(KD(), teacher_run)
    assert recipe.teacher is not None
    recipe.teacher.cache = "memory"
    recipe.data.augment = True
    with pytest.raises(
        UserError, match=r"needs samples that stay the same .*; set data\.augment to false"
    ):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cached_teacher_leaves_no_hooks_on_the_network() -> None:
    net = network()
    cached = CachedTeacher(FrozenTeacher(net), TASK, lambda: batches(torch.arange(6)), 6)
    tapped = cached.with_taps(["0"])
    assert list(tapped._values) == ["", "0"]
    assert not net[0]._forward_hooks


def test_outputs_without_a_row_for_each_sample_cannot_be_cached() -> None:
    class TimeFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.T

    cached = CachedTeacher(FrozenTeacher(TimeFirst()), TASK, lambda: batches(torch.arange(8)), 8)
    message = r"the teacher's output has the shape \(8, 4\), but the batch has 4 items"
    with pytest.raises(UserError, match=message):
        cached.with_taps([])
