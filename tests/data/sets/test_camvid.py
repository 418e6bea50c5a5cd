"""CamVid's layout: parts, void, and images decoded once in another size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tutelage import UserError
from tutelage.data import CamVid

SIZE = (12, 9)  # width and height


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for number in range(count):
            write(tmp_path, part, f"{part}{number}", range(12))
    return tmp_path


def write(root: Path, part: str, name: str, numbers: range) -> None:
    """Write an image whose columns have the classes `numbers`."""
    for folder in (root / part, root / f"{part}annot"):
        folder.mkdir(exist_ok=True)
    mask = Image.new("L", SIZE)
    image = Image.new("RGB", SIZE)
    for x, number in zip(range(SIZE[0]), numbers, strict=True):
        for y in range(SIZE[1]):
            mask.putpixel((x, y), number)
            image.putpixel((x, y), (20 * number, len(name), sum(map(ord, name)) % 256))
    mask.save(root / f"{part}annot" / f"{name}.png")
    image.save(root / part / f"{name}.png")


def test_parts_and_classes(root: Path) -> None:
    data = CamVid(str(root))
    splits = data.splits()
    assert [len(part) for part in splits.values()] == [4, 2, 3]
    assert data.classes[3] == "road"
    labels = splits["test"].batch([(0, 1)]).labels
    assert labels[0, 0].tolist() == [*range(11), -100]  # 11 is void


@pytest.mark.parametrize("augment", [False, True])
def test_another_size_is_decoded_once(root: Path, augment: bool) -> None:
    splits = CamVid(str(root), size=(18, 24), augment=augment).splits()
    for path in root.glob("*/*"):
        path.unlink()
    batch = splits["train"].batch([(0, 0), (1, 3), (0, 2)])
    assert batch.inputs.shape == (3, 3, 18, 24)
    assert batch.labels.shape == (3, 18, 24)
    rows = batch.labels[:, 4]
    expected = torch.tensor([*range(11), -100]).repeat_interleave(2)
    mirrored = [not torch.equal(row, expected) for row in rows]
    assert any(mirrored) == augment
    for row, is_mirrored in zip(rows, mirrored, strict=True):
        assert torch.equal(row.flip(0) if is_mirrored else row, expected)
    assert splits["validation"].batch([(0, 0)]).inputs.max() <= 1


def test_what_is_wrong_is_said(root: Path) -> None:
    for size in ((0, 9), 360, (1.5, 9), (True, 9), (1, 1)):
        with pytest.raises(UserError, match=r"height and width in pixels, at least 8, such as"):
            CamVid(str(root), size=size)
    with pytest.raises(UserError, match="train holds no images"):
        CamVid(str(root / "train")).splits()
    write(root, "val", "more", range(1, 13))
    with pytest.raises(UserError, match=r"has the class 12 at x=11, y=0, but .* are 0, 1, .*, 11"):
        CamVid(str(root)).splits()["validation"].batch([(0, 0)])
    (root / "val" / "more.png").unlink()
    with pytest.warns(UserWarning, match="1 masks of val without an image"):
        CamVid(str(root)).splits()
    (root / "valannot" / "more.png").unlink()
    # More than an address can tell apart, so that no system promises it.
    with pytest.raises(UserError, match="take 160000000 GB of memory, which cannot be had"):
        CamVid(str(root), size=(10**8, 10**8)).splits()
    (root / "valannot" / "val1.png").unlink()
    with pytest.raises(UserError, match="has no mask"):
        CamVid(str(root)).splits()
