"""Share the student of a finished run: on the Hugging Face Hub, or as a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tutelage.deploy.card import CardFacts, card, read_recipe, runs_of_study
from tutelage.deploy.trust import TRUSTED, code_paths
from tutelage.engine.checks.student_facts import FIX, read_student_facts
from tutelage.engine.hub import (
    FACTS,
    FURTHER,
    NAME,
    SCHEME,
    STUDENT,
    endpoint,
    hub_error,
    huggingface_hub,
    is_hub,
    parse_source,
)
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.weights import weights_file
from tutelage.errors import UserError
from tutelage.io import expanded, read_json, settle, temporary_folder, write_json, write_text
from tutelage.recipes.rebuild import student_sections

CARD = "README.md"
CONFIG = "config.json"
MIXIN_WEIGHTS = "model.safetensors"  # what `PyTorchModelHubMixin` looks for
# What tasks write for the use of their students, beside the weights.
OF_TASKS = ("recommender.safetensors", "ids.json", "student")


@dataclass(frozen=True)
class Pushed:
    """What was shared.

    Attributes:
        where: the folder, or the address of the repository.
        load: what `tutelage.load` takes.
        files: their paths in it.
        own_code: class paths outside of known libraries, which whoever loads it needs.
    """

    where: str
    load: str
    files: list[str]
    own_code: list[str]


def push(run: str | Path, repo: str, *, license: str = "unknown", private: bool = False) -> Pushed:
    """Share the student of a finished run.

    Its weights, student.json, a model card, and what the task wrote for its use. Paths of the
    data on this machine are cut to their last part.

    Args:
        run: folder of a finished run.
        repo: `owner/name` or `hf://owner/name` on the Hub, which is made if it is not there; a
            folder that exists, or a path that begins with `.`, `/` or `~`.
        license: the Hub's name of a license, such as `apache-2.0`.
        private: make a new repository private; an old one stays as it is.

    Raises:
        UserError: If the run is not finished, the folder holds something else, or the Hub cannot
            be reached or refuses.
    """
    folder = expanded(run)
    _check_whole(weights_file(folder))
    if not license.strip():
        raise UserError("the license is empty; give the Hub's name of one, such as apache-2.0")
    if not RunFolder(folder).finished:
        raise UserError(f"{folder} is no finished run: metrics.json is missing; {FIX}")
    target = _folder_of(repo)
    if target is not None:
        _check_folder(target)
        staged = temporary_folder(target.absolute())
        try:
            pushed = _stage(folder, staged, target.absolute().name, str(target), license)
            _move(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return pushed
    name = parse_source(repo if repo.startswith(SCHEME) else f"{SCHEME}{repo}").name
    hub = huggingface_hub()
    with tempfile.TemporaryDirectory() as temporary:
        pushed = _stage(folder, Path(temporary), name, f"{SCHEME}{name}", license)
        try:
            api = hub.HfApi(endpoint=endpoint(), library_name="tutelage")
            url = api.create_repo(name, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=temporary,
                commit_message="Share a student of tutelage",
            )
        except Exception as error:
            raise hub_error(error, name) from error
    return Pushed(str(url), pushed.load, pushed.files, pushed.own_code)


def _check_whole(weights: Path) -> None:
    """Raise for a file whose header and length do not belong together."""
    try:
        with safe_open(str(weights), framework="pt"):
            pass
    except Exception as error:  # damage of any kind
        raise UserError(
            f"{weights} cannot be read as safetensors ({error}); is the file complete?"
        ) from error


def _folder_of(repo: str) -> Path | None:
    """Return the folder that is meant, or None for a repository."""
    path = expanded(repo)
    if repo.startswith(SCHEME):
        return None
    if repo.startswith((".", "/", "~")) or path.is_dir() or path.is_absolute():
        return path
    if not NAME.fullmatch(repo):
        raise UserError(
            f"{repo!r} is no repository of the Hub; write owner/name, or ./{repo} for a folder"
        )
    return None


def _check_folder(target: Path) -> None:
    """Refuse a folder that holds other things than an earlier push."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder")
    if target.is_dir() and any(target.iterdir()) and not (target / CARD).is_file():
        raise UserError(f"{target} holds other files, and no card of ours; give an empty folder")
    if (target / "metrics.json").exists():
        raise UserError(f"{target} is the folder of a run; give another one")
    target.absolute().parent.mkdir(parents=True, exist_ok=True)


def _move(staged: Path, target: Path) -> None:
    """Move the files into the folder, each whole or not at all."""
    target.mkdir(exist_ok=True)
    for path in sorted(staged.rglob("*")):
        place = target / path.relative_to(staged)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            settle(path)
            os.replace(path, place)


def _stage(run: Path, folder: Path, name: str, load: str, license: str) -> Pushed:
    """Write the files that are shared."""
    student = read_student_facts(run)
    if student is None:
        raise UserError(f"{run / FACTS} is missing; {FIX}")
    recipe = read_recipe(run)
    further = _copy_further(run, folder)
    shutil.copyfile(run / STUDENT, folder / STUDENT)
    try:
        os.link(folder / STUDENT, folder / MIXIN_WEIGHTS)
    except OSError:  # a file system without links
        shutil.copyfile(run / STUDENT, folder / MIXIN_WEIGHTS)
    entries = dict(student.entries)
    if "recipe" not in entries:  # of a run that is older than these sections
        sections = student_sections(run / "recipe.yaml")
        entries |= {} if sections is None else {"recipe": sections}
    own_code = sorted(
        {path for path in code_paths(entries.get("recipe")) if not path.startswith(TRUSTED)}
    )
    if isinstance(entries.get("recipe"), Mapping):
        sections = dict(entries["recipe"])
        sections["data"] = _without_places(sections.get("data"))
        entries["recipe"] = sections
    if further:
        entries[FURTHER] = further
    write_json(folder / FACTS, entries)
    write_json(folder / CONFIG, _config(entries))
    facts = CardFacts(
        name=name,
        load=load if is_hub(load) else name,
        license=license,
        recipe=recipe,
        student=entries,
        metrics=RunFolder(run).metrics(),
        environment=read_json(run / "environment.json", FIX),
        seeds=runs_of_study(run),
        own_code=own_code,
    )
    write_text(folder / CARD, card(facts))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return Pushed(load, load, sorted(files), own_code)


def _copy_further(run: Path, folder: Path) -> list[str]:
    """Copy what the task wrote, and return its paths."""
    copied = []
    for name in OF_TASKS:
        source = run / name
        paths = [source] if source.is_file() else sorted(source.rglob("*"))
        for path in paths:
            if path.is_file():
                place = folder / path.relative_to(run)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
                copied.append(path.relative_to(run).as_posix())
    return copied


def _without_places(value: Any) -> Any:
    """Return a section with absolute paths cut to their last part; they say who and where."""
    if isinstance(value, Mapping):
        return {key: _without_places(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_places(entry) for entry in value]
    if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")):
        return Path(value).name
    return value


def _config(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json: the arguments of the network, which `from_pretrained` hands on."""
    recipe = entries.get("recipe")
    model = recipe["student"]["model"] if isinstance(recipe, Mapping) else None
    if not isinstance(model, Mapping):
        return {"architectures": [entries.get("model")]}
    arguments = model.get("init_args") or {}
    return {"architectures": [entries.get("model")], **arguments}
