from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.helpers.coco import write_voc


def test_voc_is_prepared_once(run: Run, refuse: Run) -> None:
    write_voc(Path("voc"))
    answer = run("prepare", "voc", "--source", "voc", "--out", "made")
    assert (answer.code, answer.out) == (0, "made\n")
    content = json.loads(Path("made/annotations/instances_train.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cat", "dog"]
    refuse("prepare", "voc", "--source", "voc", "--out", "made", says=("made is there already",))


def test_wrong_words_are_one_sentence(refuse: Run) -> None:
    refuse(
        "prepare",
        "deep",
        "--out",
        "a",
        says=("there is no source 'deep'", "did you mean ['deepforest']?"),
    )
    refuse("prepare", "voc", "--out", "a", says=("--source", "tutelage prepare voc --help"))
    refuse(
        "prepare",
        "deepforest",
        "--seed",
        "1",
        "--out",
        "a",
        says=("tutelage prepare deepforest does not know --seed 1", "'--stride'"),
    )
    refuse("prepare", "voc", "--source", "nowhere", "--out", "a", says=("train.txt is missing",))
    refuse("prepare", says=("SOURCE", "tutelage prepare --help"))
    refuse("prepare", "mni152", says=("--out",))
