from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, network, part, tree, write_recipe


def test_it_shows_what_would_be_done_and_does_nothing(run: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    method = part("methods.FitNet", layer_pairs={"stage1": "stage1", "stage3": "stage3"})
    recipe = write_recipe(
        "mine.yaml", method=method, teacher={"recipe": "teacher.yaml"}, num_labels=200
    )
    before = tree()
    answer = run("plan", recipe)
    assert (answer.code, answer.err) == (0, "")
    assert tree() == before
    text = answer.out
    assert "the teacher has no weights yet" in text
    assert "samples     train 200  validation 359  test 359" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "student stage1 50×4×8×8" in rows
    assert "teacher stage3 50×32×2×2" in rows
    assert "projections.1.weight 32×16×1×1 512" in rows
    assert any(row.startswith("fitnet/stage3 ") for row in rows)
    assert "4 steps of" in text


def test_it_uses_a_teacher_that_is_there(run: Run, teacher: Path) -> None:
    spec = {**network(width=8), "weights": str(teacher)}
    answer = run("plan", write_recipe("mine.yaml", method=part("methods.KD"), teacher=spec))
    assert answer.code == 0
    assert "no weights yet" not in answer.out
    assert "teacher 6," in answer.out.split("parameters")[1].splitlines()[0]


def test_it_refuses_what_train_would_refuse(refuse: Run) -> None:
    refuse(
        "plan",
        write_recipe("mine.yaml", student=network(channels=3)),
        says=("the student (SmallCNN) fails",),
    )
    refuse(
        "plan",
        write_recipe("mine.yaml"),
        "--out",
        "run",
        says=("--out is no option and no key of the recipe",),
    )


def test_a_term_that_pulls_hard_is_warned_of_where_no_cap_holds_it(run: Run) -> None:
    method = part("methods.KD", weight=500.0)
    recipe = write_recipe("mine.yaml", method=method, teacher=network(width=8))
    capped = run("plan", recipe)
    assert "train.gradient_cap 1: the method's terms together" in capped.out
    assert "warning" not in capped.out
    free = run("plan", recipe, "--train.gradient_cap", "null")
    assert "warning: the term 'kd' pulls" in free.out
    assert "gradient_cap 1" not in free.out
    alone = run("plan", recipe, "--method.task_weight", "0")
    assert "the labels have no weight, so train.gradient_cap has nothing to measure by" in alone.out
    assert "gradient_cap 1" not in alone.out
