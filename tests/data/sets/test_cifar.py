from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage import UserError
from tutelage.data import CIFAR10, CIFAR100


def write_batch(path: Path, label_key: str, count: int, first: int) -> None:
    generator = np.random.default_rng(first)
    pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [(first + i) % 10 for i in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        pickle.dumps({"data": pixels, label_key: labels, "batch_label": path.name}, protocol=2)
    )


def write_cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for number in range(1, 6):
        write_batch(folder / f"data_batch_{number}", "labels", 20, number)
    write_batch(folder / "test_batch", "labels", 10, 9)
    (folder / "batches.meta").write_bytes(
        pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}, protocol=2)
    )


def write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    write_batch(folder / "train", "fine_labels", 100, 0)
    write_batch(folder / "test", "fine_labels", 10, 1)
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"a"] * 100}, protocol=2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    return tmp_path


def test_both_are_read_as_torchvision_reads_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    for ours, theirs in ((CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)):
        monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
        monkeypatch.setattr(theirs, "_load_meta", lambda self: None)
        expected = theirs(str(root), train=False)
        test = ours(str(root)).splits()["test"]
        pixels = torch.stack([test.image(i) for i in range(10)]).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(pixels, expected.data)
        assert test.labels.tolist() == expected.targets


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_batches_may_be_pickled_again(root: Path, protocol: int) -> None:
    expected = CIFAR10(str(root)).splits()["test"]
    path = root / "cifar-10-batches-py/test_batch"
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(batch, protocol=protocol))
    assert torch.equal(CIFAR10(str(root)).splits()["test"].images, expected.images)


def test_training_is_augmented_and_the_rest_is_not(root: Path) -> None:
    splits = CIFAR10(str(root)).splits()
    assert [len(part) for part in splits.values()] == [90, 10, 10]
    assert splits["train"].augment is not None
    assert splits["test"].augment is None
    assert splits["train"][1, 0].inputs.shape == (1, 3, 32, 32)
    assert CIFAR10(str(root), augment=False).splits()["train"].augment is None
    assert CIFAR10(str(root)).classes[3] == "class3"


def test_a_copy_of_training_images_as_test_part_is_said(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    (folder / "test_batch").write_bytes((folder / "data_batch_3").read_bytes())
    with pytest.warns(UserWarning, match="training and test part .*: 20 of 20 images are in both"):
        CIFAR10(str(root)).splits()
    (folder / "data_batch_2").write_bytes((folder / "data_batch_1").read_bytes())
    (folder / "test_batch").unlink()
    write_batch(folder / "test_batch", "labels", 10, 9)
    with pytest.warns(UserWarning, match="training part .*: 20 of 100 images are in it twice"):
        CIFAR10(str(root)).splits()


def test_missing_and_broken_files_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torchvision\.datasets\.CIFAR100\(root, download=True\)"):
        CIFAR100(str(tmp_path / "nowhere")).splits()
    (root / "cifar-100-python/meta").unlink()
    with pytest.raises(UserError, match=r"has no cifar-100-python/meta"):
        CIFAR100(str(root)).splits()
    batch = root / "cifar-10-batches-py/data_batch_2"
    batch.write_bytes(batch.read_bytes()[:100])
    with pytest.raises(UserError, match="data_batch_2 cannot be read as a CIFAR batch"):
        CIFAR10(str(root)).splits()


def test_code_in_a_batch_is_refused(root: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    (root / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps({"data": Evil()}))
    with pytest.raises(UserError, match="has no place in an image file"):
        CIFAR10(str(root)).splits()
    assert not (tmp_path / "ran").exists()


def opcodes(*parts: bytes) -> bytes:
    """Return a pickle of raw operations: protocol 2, and the end."""
    return b"\x80\x02" + b"".join(parts) + b"."


def array_state(shape: tuple[object, ...], code: str, content: object) -> dict[str, object]:
    """Return a batch with an array that a pickle describes wrongly."""

    class Described:
        def __reduce__(self) -> tuple[object, ...]:
            from numpy._core.multiarray import _reconstruct

            state = (1, shape, np.dtype(code), False, content)
            return _reconstruct, (np.ndarray, (0,), b"b"), state

    return {"data": Described(), "labels": [0, 1]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (opcodes(b"]", b"r\xff\xff\xff\xff"), "more in it than any batch"),
        (opcodes(b"\x8e" + (2**40).to_bytes(8, "little")), "expected"),
        (pickle.dumps(array_state((10**6, 10**6), "u1", b"x")), "longer than its shape"),
        (pickle.dumps(array_state((2, -3072), "u1", b"x")), "a shape that is none"),
        (pickle.dumps(array_state((1,), "O", [[]])), "not of whole numbers"),
        (pickle.dumps([1, 2]), "holds no dict"),
        (pickle.dumps({"data": b"abc", "labels": [1]}), "has no images"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, protocol=2),
            r"has 1 labels for images of the shape \(2, 3072\)",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": ["a", 1]}, protocol=2),
            r"the 'labels' of .*data_batch_1 are no list of numbers",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, protocol=2),
            "has labels from 0 to 10 for 10 classes",
        ),
        (b"", "Ran out of input|cannot be read"),
        (b"\x00" * 100, "cannot be read as a CIFAR batch"),
    ],
)
def test_hostile_batches_are_one_sentence(root: Path, content: bytes, says: str) -> None:
    (root / "cifar-10-batches-py/data_batch_1").write_bytes(content)
    with pytest.raises(UserError, match=says):
        CIFAR10(str(root)).raw_splits()


def test_damage_is_always_one_sentence(root: Path) -> None:
    path = root / "cifar-10-batches-py/batches.meta"
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole[: draw.integers(1, len(whole) + 1)])
        for place in draw.integers(0, len(damaged), 4):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        with suppress(UserError):
            assert all(isinstance(name, str) for name in CIFAR10(str(root)).classes)


def test_pipes_are_not_waited_for(root: Path) -> None:
    path = root / "cifar-10-batches-py/data_batch_1"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="data_batch_1 is no regular file; download it again"):
        CIFAR10(str(root)).raw_splits()
