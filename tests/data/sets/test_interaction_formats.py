"""Readers of interactions: each format, and what is said about a damaged file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tutelage.data.sets._interaction_formats import RawInteractions, read_interactions
from tutelage.errors import UserError

# The same six interactions, of which the fifth has a rating of 0.
TRIPLES = [("7", "a"), ("7", "b"), ("9", "a"), ("7", "a"), ("9", "c"), ("x", "b")]
RATINGS = [5, 3, 4, 2, 0, 1]
RECBOLE = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def rows(separator: str, *, times: bool = True) -> str:
    lines = []
    for (user, item), rating in zip(TRIPLES, RATINGS, strict=True):
        fields = [user, item, str(rating), *(["881250949"] if times else [])]
        lines.append(separator.join(fields) + "\n")
    return "".join(lines)


FILES = {
    "ml.inter": RECBOLE + rows("\t"),
    "u.data": rows("\t"),
    "ratings.dat": rows("::"),
    "ratings.csv": "userId,movieId,rating,timestamp\n" + rows(","),
    "own.csv": "user,item,rating\n" + rows(",", times=False),
    "own.tsv": "user_id\titem_id\trating\n" + rows("\t", times=False),
}


def pairs(raw: RawInteractions) -> list[tuple[str, str]]:
    return [
        (raw.user_ids[user], raw.item_ids[item])
        for user, item in zip(raw.users.tolist(), raw.items.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("by_folder", [False, True])
def test_each_format_gives_the_same_pairs(name: str, by_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name])
    with pytest.warns(UserWarning, match=r"1 of 6 lines have a rating of 0 or less"):
        raw = read_interactions(tmp_path if by_folder else path)
    assert pairs(raw) == [pair for pair, rating in zip(TRIPLES, RATINGS, strict=True) if rating]
    assert raw.source == str(path)


def test_lists_of_citeulike(tmp_path: Path) -> None:
    (tmp_path / "users.dat").write_text("2 17 4\n1 4\n\n0\n")
    with pytest.warns(UserWarning, match=r"users\.dat: 1 of 4 users have no items"):
        raw = read_interactions(tmp_path)
    assert pairs(raw) == [("0", "17"), ("0", "4"), ("1", "4")]


def test_a_parquet_file(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table({"user_id": [7, 9], "item_id": ["a", "b"], "rating": [1.0, 0.0]})
    parquet.write_table(table, tmp_path / "own.parquet")
    with pytest.warns(UserWarning, match=r"1 of 2 lines have a rating of 0 or less"):
        assert pairs(read_interactions(tmp_path)) == [("7", "a")]
    # A column of whole numbers with a gap is one of floats in pandas.
    parquet.write_table(
        arrow.table({"user": [7.0, 9.0], "item": ["a", " b"]}), tmp_path / "own.parquet"
    )
    assert pairs(read_interactions(tmp_path)) == [("7", "a"), ("9", "b")]
    for users in ([7, None], [7.0, float("nan")], ["7", " "]):
        parquet.write_table(
            arrow.table({"user": users, "item": ["a", "b"]}), tmp_path / "own.parquet"
        )
        with pytest.raises(UserError, match=r"row 2: the user or the item is empty"):
            read_interactions(tmp_path)
    (tmp_path / "own.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"own\.parquet cannot be read as parquet"):
        read_interactions(tmp_path)


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "ratings.csv"])
def test_a_table_with_semicolons(name: str, tmp_path: Path) -> None:
    text = 'user;item;rating\n7;"a;b, c";4\n9;d;0.5\n'
    (tmp_path / name).write_text(text)
    raw = read_interactions(tmp_path / name, min_rating=0.5)
    assert pairs(raw) == [("7", "a;b, c"), ("9", "d")]
    (tmp_path / name).write_text(text.replace("0.5", "0,5"))
    with pytest.raises(UserError, match=r"line 3: the rating '0,5' is no number"):
        read_interactions(tmp_path / name)


def test_a_least_rating_and_columns_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("who,stars,what\nu,5,a\nu,2,b\n")
    raw = read_interactions(path, columns=("who", "what", None), min_rating=3)
    assert pairs(raw) == [("u", "a")]
    with pytest.raises(UserError, match=r"no column 'whom'; did you mean \['who'"):
        read_interactions(path, columns=("whom", "what", None))
    with pytest.raises(UserError, match=r"no interaction with a rating of at least 9"):
        read_interactions(path, columns=("who", "what", None), min_rating=9)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("own.csv", "7,a\n9,b\n", r"no column of users in its header \['7', 'a'\]; add a header"),
        ("own.csv", "user,item\n7,a\n7\n", r"line 3: 1 fields, but the header names 2"),
        ("own.csv", "user,item\n7,\n", r"line 2: the user or the item is empty"),
        ("own.csv", "\ufeffuser,item\n7,a\n", r"begins with a byte-order mark"),
        ("own.csv", "", r"is empty"),
        ("own.csv", 'user,item\n7,"a\n9,b\n', r"line 2: .* a field in quotes ends with one"),
        ("own.csv", "user,user,item\n7,8,a\n", r"the column 'user' is there twice"),
        ("own.csv", "user|item\n7|a\n", r"line 1: a header .* commas, tabs or semicolons between"),
        ("u.data", "\ufeff7\ta\t5\t9\n", r"begins with a byte-order mark"),
        ("ratings.dat", "\ufeff7::a::5::9\n", r"begins with a byte-order mark"),
        ("u.data", "7\t\t5\t9\n", r"line 1: the user or the item is empty"),
        ("own.csv", "user\n7\n", r"line 1: a header with names of columns"),
        ("own.csv", "user,item\n", r"has no interaction"),
        ("ml.inter", "7\ta\t5\n", r"line 1: the header of RecBole's atomic files names each"),
        (
            "ml.inter",
            "user_id:token,item_id:token\n7,a\n",
            r"tabs between columns, here are commas",
        ),
        (
            "ml.inter",
            "user_id:token;item_id:token\n7;a\n",
            r"tabs between columns, here are semicolons",
        ),
        ("ml.inter", RECBOLE + "7\ta\t\t9\n", r"line 2: the rating '' is no number"),
        ("u.data", "7\ta\tmany\t9\n", r"line 1: the rating 'many' is no number"),
        ("u.data", "7\ta\t5\t9\n7 a 5 9\n", r"line 2: 1 fields, but a line of MovieLens has 4"),
        ("ratings.dat", "7::a::5\n", r"line 1: 3 fields"),
        ("users.dat", "2 17 4\n3 4 5\n", r"line 2: .* it is 3 and 2 follow"),
        ("users.dat", "1 x\n", r"line 1: 'x' is no item number"),
        ("notes.txt", "7 a\n", r"no known name of interactions"),
        ("ratings.dat", "\x00\x01::a::5::9\n", r"line 1: the id '.*' holds control characters"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{says}"):
        read_interactions(path)


def test_settings_that_the_file_has_no_use_for_are_refused(tmp_path: Path) -> None:
    for name, text in (
        ("u.data", "7\ta\t5\t9\n"),
        ("users.dat", "1 4\n"),
        ("own.csv", "user,item\n7,a\n"),
    ):
        (tmp_path / name).write_text(text)
    for name in ("u.data", "users.dat"):
        with pytest.raises(UserError, match=r"has no header, so that there is no column 'who'"):
            read_interactions(tmp_path / name, columns=("who", None, None))
    for name in ("users.dat", "own.csv"):
        with pytest.raises(
            UserError, match=r"has no ratings, so that data\.min_rating means nothing"
        ):
            read_interactions(tmp_path / name, min_rating=4)
    with pytest.raises(UserError, match=r"the column 'user' is there twice, or would be two of"):
        read_interactions(tmp_path / "own.csv", columns=("user", "user", None))
    with pytest.raises(UserError, match=r"holds no file of the format 'recbole'"):
        read_interactions(tmp_path, "recbole")


def test_movielens_under_another_name(tmp_path: Path) -> None:
    texts = {
        "a.txt": "7::a::5::9\n",
        "b.txt": "7\ta\t5\t9\n",
        "c.csv": "userId,movieId,rating\n7,a,5\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert pairs(read_interactions(tmp_path / name, "movielens")) == [("7", "a")]


def test_labels_of_recbole_are_ratings(tmp_path: Path) -> None:
    path = tmp_path / "a.inter"
    path.write_text("user_id:token\titem_id:token\tlabel:float\n7\ta\t1\n7\tb\t0\n")
    with pytest.warns(UserWarning, match=r"1 of 2 lines have a rating of 0 or less"):
        assert pairs(read_interactions(path)) == [("7", "a")]


def test_a_missing_or_doubtful_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: there is no .*nowhere"):
        read_interactions(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no file of interactions; give a file \*\.inter"):
        read_interactions(tmp_path)
    for name in ("a.inter", "b.inter"):
        (tmp_path / name).write_text(RECBOLE + "7\ta\t5\t9\n")
    with pytest.raises(UserError, match=r"holds 2 files \*\.inter, such as a\.inter and b\.inter"):
        read_interactions(tmp_path)
    (tmp_path / "latin.csv").write_bytes("user,item\n7,café\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is no UTF-8 text"):
        read_interactions(tmp_path / "latin.csv")


def test_what_is_read_of_a_folder_or_of_a_header_is_said(tmp_path: Path) -> None:
    (tmp_path / "Ratings.CSV").write_text("user,item,user_id\n7,a,9\n")
    (tmp_path / "movies.csv").write_text("movieId,title\n7,a\n")
    with pytest.warns(
        UserWarning, match=r"\['user_id', 'user'\] could each be the column of users"
    ):
        assert pairs(read_interactions(tmp_path / "Ratings.CSV")) == [("9", "a")]
    (tmp_path / "Ratings.CSV").write_text("user,item\n7,a\n")
    assert pairs(read_interactions(tmp_path, columns=(None, None, None))) == [("7", "a")]
    (tmp_path / "test.tsv").write_text("user\titem\n9\ta\n")
    with pytest.warns(UserWarning, match=r"Ratings\.CSV is read, .* test\.tsv is not"):
        assert pairs(read_interactions(tmp_path)) == [("7", "a")]
    with pytest.raises(UserError, match=r"data\.format is auto or one of \['citeulike', .*'foo'"):
        read_interactions(tmp_path, "foo")


def test_text_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("é1\ta\t5\t9\n", encoding="utf-8")
    assert pairs(read_interactions(tmp_path)) == [("é1", "a")]


def test_columns_of_parquet_that_hold_no_ids_are_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for items, says in (
        ([[1, 2], [3]], r"the column 'item' holds list<.*>, but an id is a text or a whole number"),
        ([b"a", b"b"], r"the column 'item' holds binary"),
        ([1.5, 2.0], r"row 1: the id 1\.5 is no whole number"),
        ([float("inf"), 2.0], r"row 1: the id inf is no whole number"),
    ):
        parquet.write_table(arrow.table({"user": [7, 9], "item": items}), tmp_path / "own.parquet")
        with pytest.raises(UserError, match=says):
            read_interactions(tmp_path)


def test_numbers_are_by_first_appearance(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("user,item\nb,y\na,y\nb,x\n")
    raw = read_interactions(tmp_path)
    assert (raw.user_ids, raw.item_ids) == (["b", "a"], ["y", "x"])
    assert torch.equal(raw.users, torch.tensor([0, 1, 0]))
