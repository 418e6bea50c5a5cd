from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tutelage
from tests.cli.conftest import Run
from tests.helpers.commands import write_recipe
from tutelage import __version__
from tutelage.cli import main
from tutelage.cli.arguments import parse

PACKAGE = Path(tutelage.__file__).parent
COMMANDS = [
    "train",
    "evaluate",
    "plan",
    "advise",
    "study",
    "tune",
    "compare",
    "report",
    "recipes",
    "methods",
    "prepare",
    "init",
    "cache",
    "push",
    "doctor",
]


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_a_help_fits_a_screen_and_has_examples(
    command: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    examples = text.partition("examples:\n")[2].splitlines()
    assert examples
    assert all(f"tutelage {command or ''}" in line for line in examples)


def test_without_a_command_it_shows_the_help(run: Run) -> None:
    answer = run()
    assert answer.code == 2
    assert all(command in answer.err for command in COMMANDS)


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"tutelage {__version__}\n")


def test_the_commands_are_registered_without_torch() -> None:
    code = (
        "import sys, types; root = types.ModuleType('tutelage'); root.__path__ = [sys.argv[1]]; "
        "root.__version__ = ''; sys.modules['tutelage'] = root; import tutelage.cli.arguments; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(PACKAGE)]).returncode == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["tain"], ("no command 'tain'", "did you mean ['train'")),
        (["train"], ("required: RECIPE", "tutelage train --help")),
        (["study", "folder"], ("required: --out", "tutelage study --help")),
        (["study", "folder", "--out", "x", "--seeds", "many"], ("--seeds", "'many'")),
        (["evaluate", "run", "--split", "train"], ("--split", "'train'", "validation")),
        (["methods", "--verbose"], ("tutelage methods does not know --verbose",)),
        (["methods", "kd"], ("tutelage methods does not know kd",)),
        (["--verbose"], ("tutelage does not know --verbose",)),
    ],
)
def test_a_wrong_line_is_one_sentence(argv: list[str], says: tuple[str, ...], refuse: Run) -> None:
    refuse(*argv, says=says)


def test_the_recipe_comes_before_the_keys(refuse: Run, here: Path) -> None:
    write_recipe("mine.yaml")
    refuse(
        "train",
        "--seed",
        1,
        "mine.yaml",
        says=("mine.yaml comes before", "tutelage train mine.yaml --key value"),
    )


def test_the_methods_are_listed_with_paper_task_and_needs(run: Run) -> None:
    answer = run("methods")
    assert answer.code == 0
    for words in (
        "KD  —",
        "RCKA  —",
        "Baseline  —",
        "FitNet  —",
        "arXiv 1503.02531",
        "classification",
        "trains  nothing",
    ):
        assert words in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_keys_before_the_recipe_are_named_whatever_lies_around(
    refuse: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "100").mkdir()
    recipe = "classification/digits/kd"
    words = f"{recipe} comes before all keys: tutelage train {recipe} --key value"
    refuse("train", "--train.epochs", "3", recipe, says=(words,))
    # The folder `100` is no misplaced recipe: the recipe is where it belongs.
    refuse("train", f"{recipe}d", "--seed", "100", says=("there is no recipe",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "x"], "there is no command 'bench'; it is 'study'"),
        (["evaluate", "x", "--part", "test"], "there is no option --part; it is --split"),
        (["train", "x", "--teachers", "d"], "there is no option --teachers; it is --teacher-dir"),
    ],
)
def test_former_words_name_the_present_ones(words: list[str], message: str, refuse: Run) -> None:
    refuse(*words, says=(message,))


def test_the_home_folder_is_understood_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["train", "~/r.yaml", "--out=~/runs/a", "--teacher-dir", "~/t", "--data.root", "~/d"]
    arguments, overrides = parse(words)
    assert (arguments.source, arguments.out) == ("/home/ada/r.yaml", "/home/ada/runs/a")
    assert arguments.teacher_dir == "/home/ada/t"
    assert overrides == ["--data.root", "~/d"]  # the data expands it
    assert parse(["report", "~/run"])[0].folder == "/home/ada/run"
