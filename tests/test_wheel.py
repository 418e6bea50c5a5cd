"""The package works without a clone: sdist, a wheel of it, and a shipped recipe in a fresh venv."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Run a command; its output is part of the message if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel that is built from the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder / "hatch")]
    if subprocess.run([*pip, "hatchling>=1.24"], capture_output=True, check=False).returncode:
        pytest.skip("hatchling cannot be installed here")
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    run(*build, "-t", "sdist", cwd=ROOT, PYTHONPATH=str(folder / "hatch"))
    with tarfile.open(next(folder.glob("*.tar.gz"))) as file:
        file.extractall(folder / "source", filter="data")
    source = next((folder / "source").iterdir())
    run(*build, "-t", "wheel", cwd=source, PYTHONPATH=str(folder / "hatch"))
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_recipe(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    source = ROOT / "src"
    for path in [*source.rglob("*.yaml"), *source.rglob("*.py"), source / "tutelage/py.typed"]:
        if path.exists():
            assert path.relative_to(source).as_posix() in names


@pytest.mark.slow
def test_a_shipped_recipe_runs_without_a_clone(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    # The dependencies of this environment; its own tutelage stays hidden, for a .pth file in a
    # folder that a .pth file adds is not read.
    library = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place)
    own = Path(library.strip()) / "dependencies.pth"
    own.write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
    found = run(python, "-c", "import tutelage; print(tutelage.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(place)
    tutelage = (python.with_name("tutelage"),)
    assert "classification/digits/rcka" in run(*tutelage, "recipes", cwd=tmp_path)
    run(*tutelage, "recipes", "copy", "classification/digits/kd", "mine", cwd=tmp_path)
    assert (tmp_path / "mine" / "_setting.yaml").is_file()
    run(
        *tutelage,
        "train",
        "classification/digits/baseline",
        "--train.epochs",
        "1",
        "--teacher",
        "null",
        "--out",
        "run",
        cwd=tmp_path,
    )
    assert (tmp_path / "run" / "student.safetensors").is_file()
