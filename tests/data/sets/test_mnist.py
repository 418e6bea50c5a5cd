from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest
import torch

from tutelage import UserError
from tutelage.data import MNIST, FashionMNIST

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def write_idx(path: Path, values: torch.Tensor, compress: bool) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(
        size.to_bytes(4, "big") for size in values.shape
    )
    content = header + values.to(torch.uint8).numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_all(folder: Path, compress: bool) -> None:
    for prefix, first, count in (("train", 0, 60), ("t10k", 60, 20)):
        write_idx(
            folder / f"{prefix}-images-idx3-ubyte",
            torch.arange(first * 784, (first + count) * 784).view(count, 28, 28) % 251,
            compress,
        )
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", torch.arange(count) % 10, compress)


@pytest.mark.parametrize(
    ("inside", "compress"), [(".", True), ("FashionMNIST/raw", False), ("FashionMNIST/raw", True)]
)
def test_both_layouts_give_the_same_images(tmp_path: Path, inside: str, compress: bool) -> None:
    write_all(tmp_path / inside, compress)
    splits = FashionMNIST(str(tmp_path), validation=0.5).splits()
    assert [len(part) for part in splits.values()] == [30, 30, 20]
    batch = splits["test"][3]
    assert (batch.labels.tolist(), batch.ids.tolist()) == ([3], [3])
    assert torch.equal(
        batch.inputs[0, 0].mul(255).round().long().flatten(), torch.arange(63 * 784, 64 * 784) % 251
    )


def test_torchvision_reads_the_same(tmp_path: Path) -> None:
    from torchvision import datasets

    write_all(tmp_path / "MNIST/raw", compress=False)
    theirs = datasets.MNIST(str(tmp_path), train=False)
    ours = MNIST(str(tmp_path)).splits()["test"]
    assert torch.equal(torch.stack([ours.image(i)[0] for i in range(20)]), theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_files() -> None:
    splits = FashionMNIST().splits(num_labels=1000)
    assert [len(part) for part in splits.values()] == [
        1000,
        6000,
        10000,
    ]
    assert torch.bincount(splits["test"].labels).tolist() == [1000] * 10
    images = splits["test"].batch([(0, i) for i in range(10000)]).inputs
    assert float(images.mean()) == pytest.approx(0.2868, abs=1e-3)
    assert FashionMNIST().classes[9] == "ankle-boot"


def test_missing_short_and_mixed_up_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        FashionMNIST(str(tmp_path / "nowhere")).splits()
    with pytest.raises(UserError, match=r"lacks train-images-idx3-ubyte\[\.gz\]"):
        FashionMNIST(str(tmp_path)).splits()
    write_all(tmp_path, compress=False)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(UserError, match="train-images-idx3-ubyte is no whole IDX file"):
        FashionMNIST(str(tmp_path)).splits()
    write_idx(images, torch.zeros(59, 28, 28), compress=False)
    with pytest.raises(UserError, match="59 train images but 60 labels"):
        FashionMNIST(str(tmp_path)).splits()
    write_all(tmp_path / "zipped", compress=True)
    broken = tmp_path / "zipped/t10k-labels-idx1-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
        FashionMNIST(str(tmp_path / "zipped")).splits()


def test_no_more_is_unpacked_than_the_header_says(tmp_path: Path) -> None:
    write_all(tmp_path, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60, 28, 28))
    zeros = bytes(2**20)
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(300):  # 300 MiB in 300 KiB
            file.write(zeros)
    tracemalloc.start()
    with pytest.raises(UserError, match="is no whole IDX file"):
        FashionMNIST(str(tmp_path)).splits()
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12))
    with pytest.raises(UserError, match="is no whole IDX file"):
        FashionMNIST(str(tmp_path)).splits()


def test_wrong_sizes_and_labels_are_named(tmp_path: Path) -> None:
    write_all(tmp_path, compress=False)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", torch.zeros(20, 32, 32), compress=False)
    with pytest.raises(UserError, match="t10k images of 32×32 pixels instead of 28×28"):
        MNIST(str(tmp_path)).splits()
    write_all(tmp_path, compress=False)
    write_idx(tmp_path / "train-labels-idx1-ubyte", torch.full((60,), 37), compress=False)
    with pytest.raises(UserError, match=r"the train label 37, but there are 10 classes \(0 to 9\)"):
        MNIST(str(tmp_path)).splits()
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    os.mkfifo(tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(UserError, match="train-labels-idx1-ubyte is no regular file"):
        MNIST(str(tmp_path)).splits()
