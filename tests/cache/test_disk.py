"""A teacher's outputs in files: read back as they were, or refused by the name of the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tutelage import Batch, Classification, FrozenTeacher, UserError
from tutelage.cache import StoredTeacher, disk, table_files
from tutelage.cache.compression import Compression, errors
from tutelage.cache.shards import file_name

TASK = Classification(num_classes=3)
COUNT = 10


class Counting(nn.Sequential):
    """Counts the samples it saw."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def network(seed: int = 0) -> Counting:
    torch.manual_seed(seed)
    return Counting(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def samples(keys: Sequence[tuple[int, int]], seed: int = 3, augmented: bool = False) -> Batch:
    """Return samples with the ids 100, 101, ..., each with noise of its own in each view."""
    rows, views = [], []
    for view, position in keys:
        generator = torch.Generator().manual_seed(seed * 1000 + position + 100_000 * view)
        rows.append(torch.randn(6, generator=generator))
        views.append(view + 7 if augmented else 0)
    ids = torch.tensor([100 + position for _, position in keys])
    return Batch({"inputs": torch.stack(rows), "ids": ids, "views": torch.tensor(views)})


class Source:
    """Loads samples in batches of three; stops as a killed process would, after some batches."""

    def __init__(self, seed: int = 3, augmented: bool = False, stop_after: int = 99) -> None:
        self.seed = seed
        self.augmented = augmented
        self.stop_after = stop_after

    def __call__(self, keys: Sequence[tuple[int, int]]) -> Iterator[Batch]:
        for number, start in enumerate(range(0, len(keys), 3)):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield samples(keys[start : start + 3], self.seed, self.augmented)


def stored(folder: Path, net: nn.Module | None = None, source: Any = None, **options: Any) -> Any:
    facts = options.pop("facts", {"data": "noise"})
    teacher = FrozenTeacher(network() if net is None else net)
    return StoredTeacher(teacher, TASK, source or Source(), COUNT, folder, facts, **options)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of logits hold 3 rows, and one of layer 0 two."""
    monkeypatch.setattr(disk, "SHARD_BYTES", 3 * (3 * 4 + 16))


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("in_memory", [True, False])
def test_it_answers_what_the_network_would_say(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(table_files, "MAX_BYTES", 0)
    net = network()
    teacher = stored(tmp_path, net).with_taps(["0"])
    assert len(files_of(tmp_path)) == 4 + 5
    batch = samples([(0, position) for position in (9, 2, 5, 0)])
    net.seen = 0
    output = teacher(batch, (batch.inputs,))
    assert net.seen == 0
    torch.testing.assert_close(output.output, net(batch.inputs))
    torch.testing.assert_close(output.feature("0"), net[0](batch.inputs))
    assert teacher.models() == {"teacher": net}
    assert not net[0]._forward_hooks


@pytest.mark.usefixtures("small_files")
def test_another_run_computes_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path).with_taps([])
    said = capsys.readouterr().err
    assert "storing the teacher's outputs (logits) of 10 samples: 0.0 MiB in" in said
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path)}
    net = network()
    stored(tmp_path, net).with_taps([])
    assert net.seen == disk.PROBES - 5  # the first batch of three: the others are not loaded
    assert capsys.readouterr().err == ""
    stored(tmp_path).with_taps(["2"])
    assert "(2)" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.usefixtures("small_files")
def test_an_interrupted_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, source=Source(stop_after=2)).with_taps(["0"])
    left = files_of(tmp_path)
    assert 0 < len(left) < 9
    net = network()
    teacher = stored(tmp_path, net).with_taps(["0"])
    assert net.seen - 3 < COUNT
    batch = samples([(0, position) for position in range(COUNT)])
    torch.testing.assert_close(teacher(batch, ()).output, net(batch.inputs))
    assert not list(tmp_path.rglob("*.tmp"))


class OfTheBatch(nn.Module):
    """Gives each sample a little of its batch, as kernels for other sizes of matrices do."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-4 * x.mean(0)


@pytest.mark.usefixtures("small_files")
def test_an_interrupted_pass_leaves_the_bytes_of_a_whole_one(tmp_path: Path) -> None:
    net = nn.Sequential(OfTheBatch(), *network())
    stored(tmp_path / "whole", net, batch_size=3).with_taps(["1"])
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "cut", net, Source(stop_after=1), batch_size=3).with_taps(["1"])
    left = files_of(tmp_path / "cut")
    # Rows 0 to 2 of the logits, and 0 and 1 of the layer: the third was in no whole file.
    assert [path.name[:6] for path in left] == ["layer-", "output"]
    stored(tmp_path / "cut", net, batch_size=3).with_taps(["1"])
    whole = {path.name: path.read_bytes() for path in files_of(tmp_path / "whole")}
    assert {path.name: path.read_bytes() for path in files_of(tmp_path / "cut")} == whole


def test_other_teachers_and_data_have_other_folders(tmp_path: Path) -> None:
    for options in ({}, {"facts": {"data": "other"}}, {"dtype": "float16"}, {"top_k": 2}):
        stored(tmp_path, **options).with_taps([])
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.usefixtures("small_files")
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    """But for the spaces that fill up the header, which nobody reads."""
    stored(tmp_path).with_taps([])
    path = files_of(tmp_path)[2]
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    used = len(whole[:end].rstrip())
    for place in [*range(0, used, 5), *range(end, len(whole), 9)]:
        content = bytearray(whole)
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{path.name} is .*; remove it to make it anew"):
            stored(tmp_path).with_taps([])


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_cut_file_is_found(tmp_path: Path, kept: int) -> None:
    stored(tmp_path).with_taps([])
    path = files_of(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{path.name} is not whole"):
        stored(tmp_path).with_taps([])


@pytest.mark.usefixtures("small_files")
def test_a_foreign_file_is_found(tmp_path: Path) -> None:
    stored(tmp_path).with_taps([])
    stored(tmp_path / "b", facts={"data": "other"}).with_taps([])
    own, others = files_of(tmp_path), files_of(tmp_path / "b")
    shutil.copy(own[0], own[1])
    with pytest.raises(UserError, match=r"output-00001.* of another range of rows \(0 to 2 of 10"):
        stored(tmp_path).with_taps([])
    shutil.copy(others[1], own[1])
    with pytest.raises(UserError, match=r"output-00001.* is of another teacher or other data"):
        stored(tmp_path).with_taps([])


def test_data_that_changed_behind_the_same_name_is_found(tmp_path: Path) -> None:
    stored(tmp_path).with_taps([])
    with pytest.raises(UserError, match=r"holds other values of the logits than the teacher gives"):
        stored(tmp_path, source=Source(seed=4)).with_taps([])
    for options in ({"dtype": "float16"}, {"top_k": 2}):
        stored(tmp_path, **options).with_taps([])
        with pytest.raises(UserError, match="its data or the code of the teacher has changed"):
            stored(tmp_path, source=Source(seed=4), **options).with_taps([])


@pytest.mark.usefixtures("small_files")
def test_the_first_views_are_stored_and_others_refused(tmp_path: Path) -> None:
    net = network()
    source = Source(augmented=True)
    with pytest.raises(UserError, match=r"samples that stay the same .* or teacher\.cache_views"):
        stored(tmp_path, net, source).with_taps([])
    teacher = stored(tmp_path, net, source, views=2).with_taps([])
    batch = samples([(1, 4), (0, 4), (1, 0)], augmented=True)
    torch.testing.assert_close(teacher(batch, ()).output, net(batch.inputs))
    with pytest.raises(UserError, match=r"outputs of the views \[9\] are not cached"):
        teacher(samples([(0, 1), (2, 1)], augmented=True), ())
    with pytest.raises(UserError, match=r"outputs of the samples \[110\] are not cached"):
        teacher(samples([(0, 10)], augmented=True), ())


def test_a_teacher_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    net = network()
    nn.init.constant_(net[2].bias, torch.nan)
    with pytest.raises(UserError, match=r"teacher gives NaN or infinity for the samples \[100, 10"):
        stored(tmp_path, net).with_taps([])
    assert not files_of(tmp_path)


def test_too_little_room_is_said_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(100))
    net = network()
    with pytest.raises(UserError, match=r"\(logits\) need 0\.0 MiB in .*, where 0\.0 MiB are free"):
        stored(tmp_path, net).with_taps([])
    assert net.seen == 3


def test_what_compression_costs_is_what_is_said(tmp_path: Path) -> None:
    net = network()
    batch = samples([(0, position) for position in range(COUNT)])
    exact = net(batch.inputs).detach()
    for options in ({"dtype": "float16"}, {"top_k": 2}, {"top_k": 1, "dtype": "float16"}):
        teacher = stored(tmp_path, net, **options).with_taps([])
        found = teacher.errors[""]
        again = teacher(batch, ()).output
        assert again.dtype == torch.float32
        # Of three classes, the two largest and the mass of the third are all: rounding is left.
        rounding = 4 * torch.finfo(torch.float32).eps
        difference = float((exact - again).abs().max())
        assert found["difference"] == pytest.approx(difference, rel=1e-5, abs=rounding)
        kl = nn.functional.kl_div(
            again.log_softmax(1), exact.log_softmax(1), reduction="batchmean", log_target=True
        )
        assert found["kl"] == pytest.approx(kl.item(), abs=1e-6)


def test_the_largest_logits_and_the_mass_of_the_others_are_exact() -> None:
    logits = 3 * torch.randn(8, 20, dtype=torch.float64)
    compression = Compression(top_k=5)
    again = compression.unpack(compression.pack(logits))
    largest, classes = logits.topk(5, 1)
    assert torch.equal(again.gather(1, classes), largest)
    exact = logits.softmax(1).gather(1, classes)
    torch.testing.assert_close(again.softmax(1).gather(1, classes), exact, rtol=1e-6, atol=0)
    assert errors(logits, again)["kl"] > 0


def test_what_cannot_be_compressed_is_said() -> None:
    with pytest.raises(UserError, match=r"reach 1e\+06, more than float16 holds"):
        Compression("float16").pack(torch.tensor([[1e6]]))
    with pytest.raises(UserError, match=r"cache_top_k 3 needs logits .* got \(2, 3\)"):
        Compression(top_k=3).pack(torch.zeros(2, 3))


def test_every_layer_has_files_of_its_own() -> None:
    names = {file_name(layer) for layer in ("", "output", "a[b]", "a_b_", "a/b", "a:0", "layer-a")}
    assert len(names) == 7
    assert not any("/" in name or ":" in name for name in names)
