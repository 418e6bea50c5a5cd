from __future__ import annotations

import json
from pathlib import Path

from tests.coco import write_voc

from .conftest import Run


def test_voc_is_prepared_once(run: Run, refuse: Run) -> None:
    write_voc(Path("voc"))
    answer = run("prepare", "voc", "--source", "voc", "--out", "made")
    assert (answer.code, answer.out) == (0, "made\n")
    content = json.loads(Path("made/annotations/instances_train.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cat", "dog"]
    refuse("prepare", "voc", "--source", "voc", "--out", "made", says=("made is there already",))


def test_wrong_words_are_one_sentence(refuse: Run) -> None:
    refuse("prepare", "deep", "--out", "a", says=("nothing to prepare called 'deep'", "did you mean ['deepforest']?"))
    refuse("prepare", "voc", "--out", "a", says=("voc needs --source",))
    refuse("prepare", "deepforest", "--seed", "1", "--out", "a", says=("deepforest does not take --seed",))
    refuse("prepare", "voc", "--source", "nowhere", "--out", "a", says=("train.txt is missing",))
    refuse("prepare", says=("--out",))
