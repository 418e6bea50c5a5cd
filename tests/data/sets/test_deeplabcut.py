"""DeepLabCut's CSV: two layouts of the index, missing points, and what is wrong in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tutelage.data import DeepLabCut, PoseAugmentation
from tutelage.errors import UserError

HEADER = (
    "scorer,me,me,me,me\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n",
    "scorer,,,me,me,me,me\nbodyparts,,,nose,nose,tail,tail\ncoords,,,x,y,x,y\n",
)


def project(folder: Path, rows: list[str], header: str = HEADER[0], images: int = 10) -> Path:
    (folder / "labeled-data/clip").mkdir(parents=True, exist_ok=True)
    for number in range(images):
        image = Image.new("L", (40, 30), color=number)
        image.save(folder / f"labeled-data/clip/img{number:02d}.png")
    (folder / "CollectedData.csv").write_text(header + "".join(f"{row}\n" for row in rows))
    return folder


def rows(count: int = 10, index: str = "labeled-data/clip/img{:02d}.png") -> list[str]:
    return [f"{index.format(number)},{number},4.5,{20 + number},11" for number in range(count)]


def data(folder: Path, **settings: object) -> DeepLabCut:
    return DeepLabCut(str(folder), size=(16, 16), augment=False, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "index", ["labeled-data/clip/img{:02d}.png", "labeled-data,clip,img{:02d}.png"]
)
def test_points_are_brought_to_the_inputs(tmp_path: Path, index: str) -> None:
    header = HEADER[int("," in index)]
    found = data(project(tmp_path, rows(index=index), header))
    assert found.classes == ["nose", "tail"]
    parts = found.splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    batch = parts["test"].batch([(0, 0)])
    # The eighth row: x 8 of 40 pixels, y 4.5 of 30.
    assert batch.labels[0, 0].tolist() == pytest.approx([8.5 * 0.4 - 0.5, 5 * 16 / 30 - 0.5, 1])
    assert batch.inputs.shape == (1, 3, 16, 16)
    assert batch.ids.tolist() == [8]


def test_missing_points_frames_without_any_and_points_outside_are_counted(tmp_path: Path) -> None:
    lines = rows(8)
    lines += ["labeled-data/clip/img08.png,,,NaN,nan", "labeled-data/clip/img09.png,400,3,,"]
    lines[0] = "labeled-data/clip/img00.png,,,20,11"
    with pytest.warns(UserWarning, match="1 frames without any point.*1 points beside the image"):
        parts = data(project(tmp_path, lines), blocks=(5, 1, 3)).splits()
    assert parts["train"].batch([(0, 0)]).labels[0, :, 2].tolist() == [0.0, 1.0]
    assert parts["test"].batch([(0, 2)]).labels[0, :, 2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {3: "labeled-data/clip/img99.png,1,2,3,4"},
            "row 7 names the image .*img99.png, which is mis",
        ),
        ({3: "labeled-data/clip/img00.png,1,2,3,4"}, "img00.png of row 4 once more"),
        ({3: "labeled-data/clip/img03.png,1,2,3"}, "row 7 has 4 cells, but the header has 5"),
        ({3: "labeled-data/clip/img03.png,1,,3,4"}, r"row 7, nose has the coordinates \['1', ''\]"),
        (
            {3: "labeled-data/clip/img03.png,1,2,a,4"},
            r"row 7, tail has the coordinates \['a', '4'\]",
        ),
        ({3: "../img03.png,1,2,3,4"}, r"give a name inside of .*, without '\.\.'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[int, str], message: str) -> None:
    lines = rows()
    for number, line in change.items():
        lines[number] = line
    with pytest.raises(UserError, match=message):
        data(project(tmp_path, lines)).splits()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("scorer,me,me\nindividuals,a,a\nbodyparts,nose,nose\ncoords,x,y\n", "several animals"),
        ("scorer,me,me\nbodyparts,nose,nose\ncoords,x,likelihood\n", "an x and a y column"),
        ("scorer,me,me,me,me\nbodyparts,nose,nose,nose,nose\ncoords,x,y,x,y\n", "'nose' twice"),
        ("scorer,me,me,me,me\nbodyparts,nose,nose,,\ncoords,x,y,x,y\n", "an x and a y column"),
        ("", "begins with rows"),
    ],
)
def test_a_wrong_header_is_named(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(project(tmp_path, rows(), header)).splits()


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    project(tmp_path, rows())
    with pytest.raises(UserError, match=r"mirrors, but data\.flip_pairs"):
        DeepLabCut(str(tmp_path), augment=PoseAugmentation(mirror=0.5)).splits()
    with pytest.raises(UserError, match=r"take tutelage\.data\.PoseAugmentation"):
        DeepLabCut(str(tmp_path), augment=torch.nn.Identity()).splits()
    with pytest.raises(UserError, match="names 'ear'"):
        data(tmp_path, flip_pairs=[("nose", "ear")]).splits()
    with pytest.raises(UserError, match="there is no such folder"):
        data(tmp_path / "nowhere").splits()
    with pytest.raises(UserError, match="height and width in pixels, at least 8"):
        DeepLabCut(str(tmp_path), size=(2, 2))


@pytest.mark.parametrize("blocks", [(5, 5), (9, 0, 0), (9.0, 1, 0), (11, -1, -1)])
def test_blocks_are_three_whole_numbers(tmp_path: Path, blocks: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="three whole numbers of at least 1"):
        data(project(tmp_path, rows()), blocks=blocks).splits()


def test_few_frames_fill_three_parts_or_are_refused(tmp_path: Path) -> None:
    parts = data(project(tmp_path, rows()[:4])).splits()
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [2, 1, 1]
    with pytest.raises(UserError, match="has 2 frames with a labeled point"):
        data(project(tmp_path, rows()[:2])).splits()


def test_an_image_of_ones_own_is_resized_as_those_of_the_parts(tmp_path: Path) -> None:
    project(tmp_path, rows())
    noise = torch.randint(0, 256, (30, 40), dtype=torch.uint8)
    path = tmp_path / "labeled-data/clip/img00.png"
    Image.fromarray(noise.numpy()).save(path)
    for size in ((16, 24), (8, 8), (48, 64)):
        frames = DeepLabCut(str(tmp_path), size=size, augment=False)
        batch = frames.splits()["train"].batch([(0, 0)])
        assert torch.equal(frames.read_input(str(path)).inputs, batch.inputs)
