"""`tutelage advise`: each sentence has a study behind it, and the figures are the results'."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import evidence as written_evidence
from benchmarks.timing import RESULTS
from torch import nn

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, network, part, tree, write_recipe
from tutelage.cli import advice
from tutelage.cli.advice import advise, nearest_study
from tutelage.cli.advice_facts import Facts, settings_of
from tutelage.cli.advise import kind_of
from tutelage.cli.evidence import MEASURED_ON, START, gain_text, read_evidence
from tutelage.models import small_cnn
from tutelage.recipes import parse_recipe

FASHION = Facts(
    task="Classification",
    method="KD",
    labels=1000,
    classes=10,
    teacher="CNN",
    student="CNN",
    ratio=14.2,
    teacher_top1=91.4,
    cap=1.0,
    pulls={"kd": 3.0},
    settings=settings_of(parse_recipe("classification/fashion-mnist/kd")),
    steps=640,
    pairs={"stage3": "stage3"},
)


def texts(facts: Facts) -> list[str]:
    return [sentence.text for sentence in advise(facts)]


def test_the_evidence_is_that_of_the_results() -> None:
    current = written_evidence.written(written_evidence.evidence())
    assert written_evidence.PATH.read_text() == current, "run python -m benchmarks.evidence"


def test_every_study_that_is_named_is_there() -> None:
    studies, balance = read_evidence()
    names = [study.result for study in studies] + [balance["result"], balance["tries"]]
    names += [name for name, _ in MEASURED_ON.values()]
    for name in names:
        assert (RESULTS / f"{name}.json").is_file(), name
    assert set(MEASURED_ON) == set(START) - {"classification"}


def test_it_begins_with_what_gained_most_in_the_nearest_study() -> None:
    studies, _ = read_evidence()
    study = nearest_study(FASHION, studies)
    assert study.result == "methods_fashion-1000-capped"
    first = study.certain[0]
    assert texts(FASHION)[0].startswith(f"Begin with {first}: ")
    assert f"{first} {gain_text(study, first)}" in texts(FASHION)[0]
    assert nearest_study(replace(FASHION, cap=None), studies).result == "methods_fashion-1000"
    more = nearest_study(replace(FASHION, labels=3000, student="ViT"), studies)
    assert (more.student, more.labels) == ("ViT", 4000)


def test_it_expects_little_where_no_method_gained_with_certainty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studies, balance = read_evidence()
    uncertain = [replace(study, certain=()) for study in studies]
    monkeypatch.setattr(advice, "read_evidence", lambda: (uncertain, balance))
    sentences = texts(replace(FASHION, teacher="ViT", labels=4000, teacher_top1=86.8))
    assert sentences[0].startswith(
        "Expect little: in our nearest study no method gained with certainty"
    )
    assert any("Yours has 86.8 % on validation data." in text for text in sentences)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": 1_000_000}, "100000 labels a class"),
        ({"classes": 1000, "labels": 100_000}, "1000 classes"),
        ({"teacher": "MLPMixer"}, "a CNN distilled from a MLPMixer"),
        ({"ratio": 500.0}, "a teacher of 500 times as many parameters"),
        ({"steps": 20_000}, "a run of 20,000 steps"),
        ({"teacher": None, "ratio": None}, "one teacher"),
    ],
)
def test_it_says_where_no_study_fits(change: dict[str, object], said: str) -> None:
    (sentence,) = (
        s for s in advise(replace(FASHION, **change)) if "take that as a guess" in s.text
    )
    assert said in sentence.text
    assert sentence.studies == ()
    assert not any("take that as a guess" in text for text in texts(FASHION))


def test_a_task_without_a_study_gets_no_figure() -> None:
    (sentence,) = advise(replace(FASHION, task="MultiLabelClassification"))
    assert sentence.text.startswith("No study of ours is of MultiLabelClassification")
    assert sentence.studies == ()
    assert not re.search(r"\d", sentence.text)


@pytest.mark.parametrize("task", ["Detection", "Segmentation", "Pose", "Retrieval"])
def test_other_tasks_have_the_sentence_of_the_list_of_methods(task: str) -> None:
    first, second = advise(replace(FASHION, task=task, classes=None))
    assert START[task.lower()][1] in first.text
    assert "is not measured" in second.text
    assert "1,000 training samples" in second.text


def test_weights_and_beta_have_their_own_sentences() -> None:
    many = replace(FASHION, labels=4000, method="SRD", settings={}, cap=None)
    assert any(re.search(r"Weigh the labels \d+ times as heavily for SRD", t) for t in texts(many))
    (kept,) = (t for t in texts(replace(many, method="KD")) if "as heavily for KD" in t)
    assert kept.startswith("Begin with the recipe's weights. Weighing the labels 10 times")
    few = replace(many, labels=500)
    assert any("varied the weights of SRD in such a setting" in text for text in texts(few))
    dkd = replace(FASHION, method="DKD", settings={"DKD.beta": 8.0})
    assert any(text.startswith("Set beta to 0.5") for text in texts(dkd))
    assert not any("beta" in text for text in texts(replace(dkd, settings={"DKD.beta": 0.5})))


def test_within_the_cap_a_sure_gain_speaks_for_the_recipes_weights() -> None:
    for method in ("SRD", "CKD"):
        sentences = texts(replace(FASHION, method=method, settings={}, labels=5000))
        assert not any("as heavily" in text for text in sentences)
    assert any("within the cap they gave" in text for text in texts(FASHION))


def test_a_recipe_with_other_settings_is_not_credited_with_the_figure() -> None:
    """A study's gain is that of its recipe, and of the cap at 1."""
    other = settings_of(parse_recipe("classification/fashion-mnist/dist", ["--method.beta", "50"]))
    sentences = texts(replace(FASHION, method="DIST", settings=other))
    assert any(
        re.match(r"DIST gained \+.* but not as in this recipe: beta 50 instead of 2\.", text)
        for text in sentences
    )
    assert any(
        text.startswith("Begin with the weights of classification/fashion-mnist/dist: within")
        for text in sentences
    )
    assert not any("the recipe's weights" in text for text in sentences)
    loose = texts(replace(FASHION, cap=100.0))
    assert not any("within the cap they gave" in text for text in loose)
    free = texts(replace(FASHION, method="RCKA", settings={}, cap=None))
    assert "No figure of that study is of the recipe's RCKA." in free


def test_the_cap_is_asked_for_where_a_term_pulls_hard() -> None:
    free = replace(FASHION, cap=None, pulls={"kd": 33.0})
    assert any(
        "Set train.gradient_cap: 1 (kd pulls 33 times as hard as the labels" in text
        for text in texts(free)
    )
    assert any(text.startswith("Keep train.gradient_cap: 1: it took") for text in texts(FASHION))
    loose = replace(FASHION, cap=1000.0)
    assert any(text.startswith("Set train.gradient_cap: 1: it took") for text in texts(loose))


def test_the_temperature_and_the_pairs_are_for_methods_that_have_them() -> None:
    assert any("one small study: gains of +0.3 [" in text for text in texts(FASHION))
    paired = replace(
        FASHION, method="FitNet", settings={"FitNet.layer_pairs": {"stage2": "stage2"}}
    )
    assert not any("temperature" in text for text in texts(paired))
    assert any("layer_pairs: {stage3: stage3}" in text for text in texts(paired))
    assert not any("layer_pairs" in text for text in texts(FASHION))


def test_kinds_of_networks() -> None:
    assert kind_of(small_cnn(width=4)) == "CNN"
    assert kind_of(nn.TransformerEncoderLayer(8, 2)) == "ViT"
    assert kind_of(nn.Linear(2, 2)) == "Linear"


def test_the_command_prints_facts_and_advice_and_writes_nothing(run: Run, teacher: Path) -> None:
    section = {**network(width=8), "weights": str(teacher)}
    recipe = write_recipe("kd.yaml", method=part("methods.KD"), teacher=section)
    before = tree()
    answer = run("advise", recipe)
    assert (answer.code, answer.err) == (0, "")
    assert tree() == before
    text = " ".join(answer.out.split())
    assert "kd.yaml: 100 labeled training samples; 10 classes (10 labels a class)" in text
    assert "a CNN of " in text
    assert re.search(
        r"the teacher on validation data: top1 0\.\d+ .* mean confidence 0\.\d{3};", text
    )
    assert "layers that agree most now, by CKA: " in text
    cited = {
        name for names in re.findall(r"\[([a-z][\w, -]+)\]", text) for name in names.split(", ")
    }
    assert "digits-100" in cited
    for name in cited:
        assert (RESULTS / f"{name}.json").is_file(), name
    assert max(map(len, answer.out.splitlines())) <= 80
    assert f"tutelage tune {recipe} --trials 20" in answer.out


def test_the_next_command_is_one_that_tune_takes(run: Run) -> None:
    answer = run("advise", write_recipe("my own/baseline.yaml"))
    assert answer.code == 0
    assert "next, with its folder, since baseline itself has nothing to tune:\n" in answer.out
    assert "  tutelage tune 'my own' --trials 20 " in answer.out


def test_a_teacher_that_is_not_trained_is_said_and_stays_so(run: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    recipe = write_recipe("kd.yaml", method=part("methods.KD"), teacher={"recipe": "teacher.yaml"})
    before = tree()
    answer = run("advise", recipe)
    assert answer.code == 0
    assert "The teacher is not trained yet; `tutelage train RECIPE" in answer.out
    assert "on validation data:" not in answer.out
    assert tree() == before
