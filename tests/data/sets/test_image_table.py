from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.own_data import COLORS, write_image, write_listed, write_multi_label, write_table
from tutelage import UserError
from tutelage.data import ImageTable


def write_rows(root: Path, names: list[str]) -> list[list[str]]:
    """Write an image for every name, and return rows of path and label."""
    rows = []
    for number, name in enumerate(names):
        write_image(root / f"{number}.png", COLORS.get(name, (9, 9, 9)), number, 12)
        rows.append([f"{number}.png", name])
    return rows


def test_a_column_says_the_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_listed(tmp_path)
    data = ImageTable(str(tmp_path), size=16)
    parts = data.splits()
    # 48 rows for training, of which a fifth is cut for the test, and 12 for validation.
    assert [len(part) for part in parts.values()] == [39, 12, 9]
    assert data.classes == ["blue", "green", "red"]
    said = capsys.readouterr().err
    assert said.count("image 'file_name', label 'class', split 'split'") == 1
    batch = parts["validation"].batch([(0, position) for position in range(12)])
    assert batch.inputs.shape == (12, 3, 16, 16)
    brightest = batch.inputs.mean((2, 3)).argmax(1)
    assert torch.equal(brightest, torch.tensor([2, 1, 0])[batch.labels])


def test_columns_can_be_named_and_paths_lack_their_ending(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "photos", ["red", "blue"] * 10)
    short = [[path.removesuffix(".png"), "x", label] for path, label in rows]
    write_table(tmp_path, ["id", "class", "kind"], short, "a.csv")
    data = ImageTable(
        str(tmp_path / "a.csv"), images=str(tmp_path / "photos"), image="id", label="kind"
    )
    assert data.classes == ["blue", "red"]
    assert sum(map(len, data.splits().values())) == 20


def test_tables_of_parts(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, ["red", "blue"] * 12)
    for name, chosen in (("train", rows[:16]), ("val", rows[16:20]), ("test", rows[20:])):
        write_table(tmp_path, ["path", "label"], chosen, f"{name}.csv")
    parts = ImageTable(str(tmp_path)).splits()
    assert [len(part) for part in parts.values()] == [16, 4, 4]
    write_table(tmp_path, ["path", "label"], [["1.png", "green"]], "val.csv")
    with pytest.raises(UserError, match="the validation part has the class 'green'"):
        ImageTable(str(tmp_path)).splits()


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ";")])
def test_other_separators_are_read(tmp_path: Path, name: str, separator: str) -> None:
    rows = write_rows(tmp_path, ["10", "9"] * 6)
    lines = [separator.join(row) for row in [["path", "label"], *rows]]
    (tmp_path / name).write_text("\n".join(lines))
    assert ImageTable(str(tmp_path)).classes == ["9", "10"]


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = write_rows(tmp_path, ["red", "blue"] * 10)
    table = pyarrow.table(
        {"path": [r[0] for r in rows], "label": [int(r[1] == "red") for r in rows]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    data = ImageTable(str(tmp_path))
    assert data.classes == ["0", "1"]
    assert sum(map(len, data.splits().values())) == 20


def test_rows_without_a_label_are_counted(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, ["red", "blue"] * 10)
    rows[3][1] = ""
    write_table(tmp_path, ["path", "label"], rows, "a.csv")
    with pytest.warns(UserWarning, match="1 rows without a label"):
        parts = ImageTable(str(tmp_path)).splits()
    assert sum(map(len, parts.values())) == 19


def test_several_labels_in_a_cell(tmp_path: Path) -> None:
    write_multi_label(tmp_path)
    data = ImageTable(str(tmp_path), multi_label=True, size=16)
    parts = data.splits()
    assert data.classes == ["blue", "green", "red"]
    batch = parts["test"].batch([(0, position) for position in range(len(parts["test"]))])
    assert batch.labels.dtype == torch.float32
    assert batch.labels.shape == (16, 3)
    assert set(batch.labels.sum(1).tolist()) == {1.0, 2.0}
    # Upper and lower half of an image show its colors.
    halves = torch.stack([batch.inputs[:, :, :6].mean((2, 3)), batch.inputs[:, :, 9:].mean((2, 3))])
    shown = torch.zeros(16, 3).scatter_(1, 2 - halves.argmax(2).T, 1.0)
    assert torch.equal(shown, batch.labels)
    subset = data.splits(num_labels=10, seed=1)["train"]
    assert len(subset) == 10


def test_a_column_a_class(tmp_path: Path) -> None:
    paths = [row[0] for row in write_rows(tmp_path, ["red"] * 20)]
    rows = [[path, str(n % 2), "true" if n % 3 else "False"] for n, path in enumerate(paths)]
    write_table(tmp_path, ["path", "cat", "dog"], rows, "a.csv")
    data = ImageTable(str(tmp_path), label=["cat", "dog"], multi_label=True)
    assert data.classes == ["cat", "dog"]
    train = data.splits()["train"]
    number = int(train.ids[4])
    assert train.labels[4].tolist() == [float(number % 2), float(number % 3 > 0)]
    rows[5][1] = "2"
    write_table(tmp_path, ["path", "cat", "dog"], rows, "a.csv")
    with pytest.raises(UserError, match=r"row 6: the column 'cat' of a class is 0 or 1, got '2'"):
        data.splits()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, ["red", "blue"] * 10)

    def read(header: list[str], content: list[list[str]], **settings: object) -> None:
        write_table(tmp_path, header, content, "a.csv")
        ImageTable(str(tmp_path), **settings).splits()  # type: ignore[arg-type]

    with pytest.raises(UserError, match="none of which is named as images usually are"):
        read(["a", "b"], rows)
    with pytest.raises(UserError, match=r"no column 'pth', which data.image names; did you mean"):
        read(["path", "label"], rows, image="pth")
    with pytest.raises(UserError, match="row 2: 3 fields, but the header names 2"):
        read(["path", "label"], [rows[0], [*rows[1], "x"]])
    with pytest.raises(UserError, match="says 'later', but parts are train, val and test"):
        read(["path", "label", "split"], [[*row, "later"] for row in rows])
    with pytest.raises(UserError, match=r"set data.images to the folder"):
        read(["path", "label"], [["no.png", "red"], ["no2.png", "blue"]])
    with pytest.raises(UserError, match="has 1 classes in its training rows"):
        read(["path", "label"], rows[::2])
    with pytest.raises(UserError, match=r"set data.multi_label: true"):
        ImageTable(str(tmp_path), label=["a", "b"])
    with pytest.raises(UserError, match="two of one name"):
        read(["path", "path"], rows)
    write_table(tmp_path, ["path", "label"], rows, "b.csv")
    with pytest.raises(UserError, match=r"these tables: a\.csv, b\.csv"):
        ImageTable(str(tmp_path)).splits()
