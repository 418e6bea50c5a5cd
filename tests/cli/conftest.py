"""Commands run as a user runs them: in a folder of their own, by `main`, with what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import TEACHER, Answer, tree, write_recipe
from tutelage.cli import main

Run = Callable[..., Answer]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, on a screen of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `tutelage …` in this process."""

    def call(*argv: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


@pytest.fixture
def refuse(run: Run) -> Run:
    """Return a function that runs a command and makes sure it ends as a user's mistake should.

    One sentence on stderr, exit code 2, and not a byte on disk is another. The keyword `says` lists
    what the sentence must say.
    """

    def call(*argv: object, says: tuple[str, ...]) -> Answer:
        before = tree()
        answer = run(*argv)
        assert answer.code == 2
        assert answer.out == ""
        assert answer.err.startswith("tutelage: ")
        assert answer.err.count("\n") == 1, answer.err
        assert "Traceback" not in answer.err
        for words in says:
            assert words in answer.err
        assert tree() == before
        return answer

    return call


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a teacher with `small_cnn(width=8)` that knows its digits."""
    folder = tmp_path_factory.mktemp("cli-teacher")
    assert (
        main(
            [
                "train",
                write_recipe(folder / "teacher.yaml", **TEACHER),
                "--out",
                str(folder / "run"),
            ]
        )
        == 0
    )
    return folder / "run"
