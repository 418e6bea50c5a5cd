"""What commands say: their help, warnings, and the folders that they choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import network, part, write_recipe
from tutelage.cli import main
from tutelage.cli.train import default_out
from tutelage.recipes import parse_recipe

TEACHER = network(width=8)


@pytest.mark.parametrize(
    ("command", "has", "lacks"),
    [
        ("train", "--seed 1", "--data.root DIR --teacher.weights"),
        ("study", "but the seed", "--seed 1"),
        ("evaluate", "--data.root DIR --teacher.weights FILE", "--seed"),
    ],
)
def test_a_help_offers_the_keys_that_its_command_takes(
    command: str, has: str, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    before_options = capsys.readouterr().out.partition("positional arguments")[0]
    assert has in before_options
    assert lacks not in before_options


@pytest.mark.parametrize("key", ["--seed", "--num_labels", "--train.epochs", "--method.weight"])
def test_keys_that_a_finished_run_cannot_take_are_refused(key: str, refuse: Run) -> None:
    refuse("evaluate", "run", key, "1", says=(f"{key} cannot be set for a finished run",))
    says = ("run is no run folder",)
    refuse("evaluate", "run", "--train.eval_batch_size", "1", says=says)


def test_a_command_without_options_says_so(refuse: Run) -> None:
    refuse("methods", "KD", says=("tutelage methods does not know KD; it takes no options",))


@pytest.mark.filterwarnings("default:CKD has almost no signal")
def test_a_warning_is_one_line_and_said_once(run: Run) -> None:
    recipe = write_recipe("own.yaml", teacher=TEACHER, method=part("methods.CKD"))
    answer = run("plan", recipe, "--train.batch_size", "4")
    assert answer.code == 0
    assert answer.err == (
        "warning: CKD has almost no signal from fewer than 8 items; enlarge train.batch_size\n"
    )


def test_an_error_of_a_plan_comes_alone(refuse: Run) -> None:
    method = part("methods.RCKA", layer_pairs={"stage2": "stage9"})
    says = ("a layer of the teacher: no module 'stage9'",)
    refuse("plan", write_recipe("own.yaml", teacher=TEACHER, method=method), says=says)


def test_missing_weights_and_wrong_statistics_say_of_which_network(refuse: Run) -> None:
    teacher = {**TEACHER, "weights": "nowhere"}
    recipe = write_recipe("own.yaml", teacher=teacher, method=part("methods.KD"))
    refuse("plan", recipe, says=("teacher: there are no weights at nowhere",))
    student = {**network(), "mean": [0.5], "std": [0.0]}
    says = ("student: std must be positive",)
    refuse("plan", write_recipe("own.yaml", student=student), says=says)


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("kd.yaml", "runs/kd-seed0"),
        ("own/kd.yaml", "runs/own-kd-seed0"),
        ("a/b/c/kd.yaml", "runs/b-c-kd-seed0"),
    ],
)
def test_the_run_folder_is_named_by_the_recipe_and_not_by_the_working_folder(
    path: str, out: str
) -> None:
    write_recipe(path)
    assert default_out(parse_recipe(path)) == out
    assert default_out(parse_recipe(Path(path).absolute())) == out
