from __future__ import annotations

import os
import pickle
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
    write_batch(folder / "test", "fine_labels", 10, 0)
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


def test_training_is_augmented_and_the_rest_is_not(root: Path) -> None:
    splits = CIFAR10(str(root)).splits()
    assert [len(part) for part in splits.values()] == [90, 10, 10]
    assert splits["train"].augment is not None
    assert splits["test"].augment is None
    assert splits["train"][1, 0].inputs.shape == (1, 3, 32, 32)
    assert CIFAR10(str(root), augment=False).splits()["train"].augment is None
    assert CIFAR10(str(root)).classes[3] == "class3"


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
