"""Readers of BEIR, TREC, Cranfield, WordNet and tables of pairs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.helpers.texts import write_beir, write_lines
from tutelage.data import Beir, Cranfield, TextPairs, Trec, WordNet
from tutelage.data.sets.cranfield import DOCUMENTS, QRELS, TOPICS
from tutelage.errors import UserError

WORDNET = Path("/usr/share/wordnet")
CRANFIELD = os.environ.get("TUTELAGE_CRANFIELD", "")


# ---- BEIR ----


def test_ids_are_text_and_a_title_is_put_once(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    first = json.loads((root / "corpus.jsonl").read_text().splitlines()[0])
    lines = [{**first, "_id": "007", "text": first["title"] + ". and more"}, {**first, "_id": "7"}]
    write_lines(root / "corpus.jsonl", map(json.dumps, lines))
    write_lines(root / "qrels/test.tsv", ["query-id\tcorpus-id\tscore", "q0-3\t007\t1"])
    for part in ("train", "dev"):
        (root / f"qrels/{part}.tsv").unlink()
    with pytest.warns(UserWarning, match=r"queries.jsonl: 95 queries without judgments"):
        contents = Beir(str(root)).contents()
    assert contents.corpus.ids == ["007", "7"]
    assert contents.corpus.items[0] == first["title"] + ". and more"
    assert contents.corpus.items[1].startswith(first["title"] + " the ")


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    path = root / "qrels/test.tsv"
    extra = ["q0-3\tnowhere\t1", "nobody\td1\t1", "q0-3\td0\t2", "q1-3\td5\t0"]
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in extra))
    says = (
        r"test.tsv: 1 judgments of unknown documents, 1 judgments of unknown queries, "
        r"1 doubled judgments"
    )
    with pytest.warns(UserWarning, match=says):
        part = Beir(str(root)).contents().parts["test"]
    assert len(part.judgments) == 25
    assert part.judgments.grades.max() == 2
    assert len(part.queries) == 24  # queries of other parts, without a judgment here, are none


def test_empty_documents_are_said(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    lines = (root / "corpus.jsonl").read_text().splitlines()
    lines.append(json.dumps({"_id": "empty", "title": "", "text": " "}))
    write_lines(root / "corpus.jsonl", lines)
    with pytest.warns(UserWarning, match="corpus.jsonl: 1 documents without text"):
        contents = Beir(str(root)).contents()
    assert contents.corpus.items[-1] == ""


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("corpus.jsonl", '{"_id": "d0", "text": "x"}', r"'d0' is given twice, in entries 1 and 25"),
        ("corpus.jsonl", "{not json", r"corpus.jsonl, line 25, is no JSON"),
        ("corpus.jsonl", '{"_id": 7, "text": "x"}', r"line 25, has no field '_id' of text"),
        ("queries.jsonl", '{"_id": "q0-0", "text": "x"}', r"'q0-0' is given twice"),
        ("qrels/test.tsv", "q0-3\td0", r"test.tsv, line 26: a judgment is"),
    ],
)
def test_a_wrong_line_is_named(file: str, line: str, says: str, tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    path = root / file
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=says):
        Beir(str(root)).contents()


def test_a_header_with_the_document_first_is_refused(tmp_path: Path) -> None:
    path = write_beir(tmp_path) / "qrels/test.tsv"
    lines = path.read_text().splitlines()
    write_lines(path, ["corpus-id\tquery-id\tscore", *lines[1:]])
    with pytest.raises(UserError, match=r"test.tsv, line 1, names the columns \['corpus-id'"):
        Beir(str(tmp_path)).contents()


def test_training_queries_must_be_left(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    (root / "qrels/dev.tsv").unlink()
    with (
        pytest.warns(UserWarning, match="24 queries without judgments"),
        pytest.raises(UserError, match=r"no training query is left beside \d+ for validation"),
    ):
        Beir(str(root), validation=0.999).splits()
    with pytest.raises(UserError, match="documents_per_query is a whole number from 0 on, got -1"):
        Beir(str(root), documents_per_query=-1).splits()


@pytest.mark.parametrize("grade", ["inf", "nan", "1e30", "0.5", "yes", "1_0"])
def test_a_grade_is_a_whole_number(grade: str, tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    with (root / "qrels/test.tsv").open("a") as file:
        file.write(f"q0-3\td3\t{grade}\n")
    with pytest.raises(UserError, match=r"test.tsv, line \d+: a judgment is"):
        Beir(str(root)).contents()


def test_a_first_judgment_of_trec_is_no_header(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    write_lines(root / "qrels/test.tsv", ["q0-3 0 d0 high", "q0-3 0 d1 1"])
    with pytest.raises(UserError, match=r"test.tsv, line 1: a judgment is"):
        Beir(str(root)).contents()


def test_a_title_that_is_no_text_is_named(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    with (root / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "year", "title": 1984, "text": "a text"}) + "\n")
    with pytest.raises(UserError, match=r"title of document 'year' is 1984"):
        Beir(str(root)).contents()


def test_judged_queries_without_text_are_said(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    with (root / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "silent", "text": " "}) + "\n")
    with (root / "qrels/test.tsv").open("a") as file:
        file.write("silent\td0\t1\n")
    with pytest.warns(UserWarning, match=r"test.tsv: 1 queries without text"):
        Beir(str(root)).contents()


def test_training_queries_that_are_held_out_are_left_out(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    tested = (root / "qrels/test.tsv").read_text().splitlines()[1]
    validated = (root / "qrels/dev.tsv").read_text().splitlines()[1]
    texts = {entry["_id"]: entry["text"] for entry in map(json.loads, open_lines(root))}
    with (root / "queries.jsonl").open("a") as file:
        text = texts[validated.split("\t")[0]].upper() + "?"
        file.write(json.dumps({"_id": "again", "text": text}) + "\n")
    with (root / "qrels/train.tsv").open("a") as file:
        file.write(f"{tested}\nagain\td0\t1\n")
    with pytest.warns(UserWarning, match=r"2 of 50 training queries are also queries of valid"):
        parts = Beir(str(root)).splits()
    train = parts["train"]
    assert len(train) == 48
    names = [train.queries.ids[row] for row in train.rows]
    assert not {tested.split("\t")[0], "again"} & set(names)
    assert len(parts["test"]) == len(parts["validation"]) == 24


def test_validation_queries_that_are_tested_are_said(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    write_lines(root / "qrels/dev.tsv", (root / "qrels/test.tsv").read_text().splitlines())
    with (
        pytest.warns(UserWarning, match="24 queries without judgments"),  # those of dev.tsv
        pytest.warns(UserWarning, match="24 of 24 validation queries are also queries of test"),
    ):
        assert len(Beir(str(root)).splits()["validation"]) == 24


def open_lines(root: Path) -> list[str]:
    """Return the lines of a BEIR folder's queries."""
    return (root / "queries.jsonl").read_text().splitlines()


@pytest.mark.parametrize("share", [2, 1.0, -0.1])
def test_shares_for_validation_are_checked_even_where_they_are_not_used(
    share: float, tmp_path: Path
) -> None:
    root = str(write_beir(tmp_path))
    with pytest.raises(UserError, match=r"data\.validation is a share between 0 and 1"):
        Beir(root, validation=share).splits()
    with pytest.raises(UserError, match=r"data\.judged_validation is a share between 0 and 1"):
        Beir(root, judged_validation=share).splits()


def test_a_share_beside_validation_queries_is_said(tmp_path: Path) -> None:
    root = str(write_beir(tmp_path))
    with pytest.warns(UserWarning, match=r"data\.validation 0\.2 is not used: there are other"):
        assert len(Beir(root, validation=0.2).splits()["validation"]) == 24
    with pytest.raises(UserError, match=r"judged_validation is 0\.2, but the data has validation"):
        Beir(root, judged_validation=0.2).splits()


def test_tested_queries_without_a_relevant_document_are_said(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    lines = (root / "qrels/test.tsv").read_text().splitlines()
    query, document, _ = lines[1].split("\t")
    write_lines(root / "qrels/test.tsv", [lines[0], f"{query}\t{document}\t0", *lines[2:]])
    with pytest.warns(UserWarning, match=r"test.tsv: 1 queries without a relevant document"):
        Beir(str(root)).contents()


def test_an_empty_id_is_refused(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    lines = open_lines(root)
    write_lines(root / "queries.jsonl", [*lines, json.dumps({"_id": " ", "text": "a wing"})])
    with pytest.raises(UserError, match=rf"entry {len(lines) + 1} has an empty id"):
        Beir(str(root)).contents()


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        Beir(str(tmp_path / "nowhere")).contents()
    root = write_beir(tmp_path)
    (root / "qrels/test.tsv").unlink()
    with pytest.raises(UserError, match=r"test.tsv is missing"):
        Beir(str(root)).contents()
    (root / "qrels/test.tsv").mkdir()
    with pytest.raises(UserError, match=r"test.tsv is no regular file"):
        Beir(str(root)).contents()
    (root / "qrels/test.tsv").rmdir()
    write_lines(root / "qrels/test.tsv", ["query-id\tcorpus-id\tscore", "other\tids\t1"])
    with (
        pytest.warns(UserWarning, match="unknown queries"),
        pytest.raises(UserError, match="no judgment fits a query and a document"),
    ):
        Beir(str(root)).contents()
    (root / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"queries.jsonl is missing"):
        Beir(str(root)).contents()


def test_queries_of_a_users_own_generator(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    test_query = json.loads((root / "queries.jsonl").read_text().splitlines()[3])["text"]
    lines = ["d0\tmy own query", '{"document": "d1", "query": "another one"}', "gone\tx y z"]
    file = write_lines(tmp_path / "mine.tsv", [*lines, f"d2\t{test_query.upper()}!"])
    with pytest.warns(UserWarning, match="1 queries of unknown documents, 1 queries equal to a"):
        parts = Beir(str(root), generated_file=str(file)).splits()
    pool = parts["train"].pools["user"]
    assert pool.items == ["my own query", "another one"]
    assert pool.ids == ["user-1-d0", "user-2-d1"]
    write_lines(file, ["no tab here"])
    with pytest.raises(UserError, match=r"mine.tsv, line 1, has no tab: 'no tab here'"):
        Beir(str(root), generated_file=str(file)).splits()


# ---- TREC and Cranfield ----


def write_trec(root: Path, documents: str, topics: str, qrels: str) -> Path:
    blocks = [
        f"<doc>\r\n<docno>{n}</docno>\r\n<title>on lift {n} .</title>\r\n"
        f"<text>on lift {n} .\r\n  the wing &amp; the jet {n} are thin . it is cold .</text>\r\n"
        f"</doc>\r\n"
        for n in range(1, 6)
    ]
    (root / documents).write_text("".join(blocks), newline="")
    numbers = (1, 2, 4, 8)
    tops = [f"<top>\n<num> {n}</num>\n<title>\nwhat of {n} .\n</title>\n</top>\n" for n in numbers]
    (root / topics).write_text("<?xml version='1.0'?>\n<xml>\n" + "".join(tops) + "</xml>\n")
    (root / qrels).write_text("1 0 1 1\n2 0 2 1\n3 0 3 3\n3 0 4 0\n4 0 5 1\n")
    return root


def test_cranfield_joins_topics_by_position(tmp_path: Path) -> None:
    contents = Cranfield(str(write_trec(tmp_path, DOCUMENTS, TOPICS, QRELS))).contents()
    part = contents.parts["test"]
    assert part.queries.items == ["what of 1 .", "what of 2 .", "what of 4 .", "what of 8 ."]
    assert part.judgments.documents.tolist() == [0, 1, 2, 3, 4]
    assert part.judgments.grades.tolist() == [1, 1, 1, 0, 1]
    assert contents.corpus.items[0] == "on lift 1 . the wing & the jet 1 are thin . it is cold ."
    assert contents.documents.texts[0].startswith("the wing")
    made = Cranfield(str(tmp_path), pairs=["first_sentence"], generated=["tfidf"]).splits()
    assert made["train"].queries.items[0] == "the wing & the jet 1 are thin"


def test_cranfield_refuses_judgments_of_other_topics(tmp_path: Path) -> None:
    root = write_trec(tmp_path, DOCUMENTS, TOPICS, QRELS)
    with (root / QRELS).open("a") as file:
        file.write("8 0 1 1\n")
    with pytest.raises(UserError, match=r"judgments of query 8, but .* has 4 topics"):
        Cranfield(str(root)).contents()
    (root / TOPICS).write_text("nothing")
    with pytest.raises(UserError, match="holds no topic between <top> and </top>"):
        Cranfield(str(root)).contents()
    (root / DOCUMENTS).write_text("<doc><title>x</title></doc>")
    with pytest.raises(UserError, match="the document 1 of it has no <docno>"):
        Cranfield(str(root)).contents()


def test_trec_joins_topics_by_number(tmp_path: Path) -> None:
    root = write_trec(tmp_path, "docs", "topics", "qrels")
    data = Trec(str(root), "docs", "topics", "qrels")
    with (
        pytest.warns(UserWarning, match="topics: 1 queries without judgments"),
        pytest.warns(UserWarning, match="qrels: 2 judgments of unknown queries"),
    ):
        part = data.contents().parts["test"]  # of topic 3, which there is not
    assert part.queries.ids == ["1", "2", "4"]


def test_trec_refuses_a_number_in_two_forms(tmp_path: Path) -> None:
    root = write_trec(tmp_path, "docs", "topics", "qrels")
    with (root / "topics").open("a") as file:
        file.write("<top><num> 001</num><title>another question</title></top>")
    with pytest.raises(UserError, match="topics: the id '1' is given twice"):
        Trec(str(root), "docs", "topics", "qrels").contents()


@pytest.mark.parametrize(("file", "tag"), [("docs", "doc"), ("topics", "top")])
def test_trec_refuses_what_has_no_end(file: str, tag: str, tmp_path: Path) -> None:
    root = write_trec(tmp_path, "docs", "topics", "qrels")
    text = (root / file).read_text()
    whole = text.count(f"</{tag}>")
    (root / file).write_text(text.replace(f"</{tag}>", "", 1))
    says = f"{file} has {whole} times <{tag}>, but {whole - 1} of them end"
    with pytest.raises(UserError, match=says):
        Trec(str(root), "docs", "topics", "qrels").contents()


@pytest.mark.skipif(not CRANFIELD, reason="TUTELAGE_CRANFIELD does not name the folder")
def test_the_real_cranfield_has_its_counts() -> None:
    with pytest.warns(UserWarning, match="2 documents without text"):
        contents = Cranfield(CRANFIELD).contents()
    judgments = contents.parts["test"].judgments
    assert len(contents.corpus) == 1400
    assert len(contents.parts["test"].queries) == 225
    assert int((judgments.grades > 0).sum()) == 1612
    assert int((judgments.grades == 0).sum()) == 225


# ---- WordNet ----


def write_wordnet(root: Path, count: int = 40) -> Path:
    for kind in ("noun", "verb", "adj", "adv"):
        lines = ["  1 This software and database is being provided to you"]
        for number in range(count):
            gloss = f'thing {number} of a {kind}; "it is the {kind} {number} here"; "too short"'
            words = f"02 big_{kind}{number}(a) 0 x{number} 0"
            lines.append(f"{number:08d} 03 n {words} 000 | {gloss}")
        write_lines(root / f"data.{kind}", lines)
    return root


def test_wordnet_is_cut_by_sense(tmp_path: Path) -> None:
    data = WordNet(str(write_wordnet(tmp_path)), size=50)
    parts = data.splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 30,
        "validation": 10,
        "test": 10,
        "corpus": 50,
    }
    row = int(parts["test"].judgments.documents[0])
    kind, number = parts["corpus"].corpus.ids[row].split("-")
    assert parts["test"].queries.items[0] == f"it is the {kind} {int(number)} here"
    text = f"big {kind}{int(number)}, x{int(number)}: thing {int(number)} of a {kind}"
    assert parts["corpus"].corpus.items[row] == text
    relevant = [set(parts[name].judgments.documents.tolist()) for name in ("train", "test")]
    assert not relevant[0] & relevant[1]
    with pytest.raises(UserError, match=r"data\.size is 10 to 160 senses"):
        WordNet(str(tmp_path), size=500).splits()
    with pytest.raises(UserError, match="apt-get install wordnet-base"):
        WordNet(str(tmp_path / "nowhere")).splits()


@pytest.mark.skipif(not WORDNET.is_dir(), reason="wordnet-base is not installed")
def test_the_real_wordnet_has_its_counts() -> None:
    parts = WordNet(size=4000).splits()
    assert len(parts["corpus"]) == 4000
    assert len(parts["train"]) > 2400
    assert torch.equal(parts["test"].judgments.documents.unique(), torch.arange(800))


# ---- pairs ----


def test_pairs_of_a_table_are_cut_by_document(tmp_path: Path) -> None:
    lines = [f"query {n}\tdocument {n // 2}" for n in range(40)]
    file = write_lines(tmp_path / "pairs.tsv", [*lines, "\tno query"])
    with pytest.warns(UserWarning, match="1 rows without query or document"):
        parts = TextPairs(str(file), test=0.25).splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 20,
        "validation": 10,
        "test": 10,
        "corpus": 20,
    }
    trained = set(parts["train"].judgments.documents.tolist())
    assert not trained & set(parts["test"].judgments.documents.tolist())
    write_lines(file, ["one\ttwo\tthree"])
    with pytest.raises(UserError, match=r"pairs.tsv, line 1, has 3 columns and not 2"):
        TextPairs(str(file)).splits()
    write_lines(file, ["Query\tDocument", *lines])
    with pytest.raises(UserError, match=r"pairs.tsv, line 1, is a header; remove it"):
        TextPairs(str(file)).splits()
    with pytest.raises(UserError, match="is missing, or no file"):
        TextPairs(str(tmp_path / "nowhere.tsv")).splits()


def test_parquet_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "pairs.parquet"
    columns = {"q": [f"q{n}" for n in range(20)], "d": [f"d{n}" for n in range(20)]}
    parquet.write_table(pyarrow.table(columns), file)
    parts = TextPairs(str(file), query="q", document="d").splits()
    assert len(parts["corpus"]) == 20
    with pytest.raises(UserError, match="with the columns 'query' and 'document'"):
        TextPairs(str(file)).splits()
