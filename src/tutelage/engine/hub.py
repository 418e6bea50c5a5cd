"""Files of the Hugging Face Hub: `hf://owner/name[@revision][/file]` as a file on this machine.

Downloads go to huggingface_hub's cache and are made once. `HF_ENDPOINT` names another server,
`HF_HUB_OFFLINE=1` takes the cache alone, `HF_TOKEN` is for private repositories.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from tutelage.errors import NotInstalledError, UserError, reason
from tutelage.io import read_json

SCHEME = "hf://"
STUDENT = "student.safetensors"
FACTS = "student.json"
FURTHER = "files"  # of student.json: what the student needs besides, such as a recommender's tables
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubSource:
    """What `hf://owner/name@revision/file` says.

    Attributes:
        name: owner and name of the repository.
        revision: branch, tag or commit; None is the default branch.
        file: path in the repository; None is the shipped student.
    """

    name: str
    revision: str | None
    file: str | None


def is_hub(source: str | Path) -> bool:
    """Return whether a source is on the Hub."""
    return isinstance(source, str) and source.startswith(SCHEME)


def parse_source(source: str) -> HubSource:
    """Return the parts of a source.

    >>> parse_source("hf://me/flowers@v1/teacher.safetensors")
    HubSource(name='me/flowers', revision='v1', file='teacher.safetensors')
    >>> parse_source("hf://me/flowers")
    HubSource(name='me/flowers', revision=None, file=None)

    Raises:
        UserError: If it is no such source.
    """
    owner, _, rest = source.removeprefix(SCHEME).partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    name = f"{owner}/{repository}"
    if not NAME.fullmatch(name) or ".." in PurePosixPath(file).parts:
        raise UserError(
            f"{source!r} is no source of the Hub; write hf://owner/name, "
            "hf://owner/name@revision or hf://owner/name/file"
        )
    return HubSource(name, revision or None, file or None)


def hub_file(source: str) -> Path:
    """Return a file of the Hub on this machine, downloaded if it is not there.

    A source without a file means the student of a run that was pushed; what its student.json names
    lies beside it.

    Raises:
        UserError: If there is none, the Hub cannot be reached, or huggingface_hub is missing.
    """
    parsed = parse_source(source)
    if parsed.file not in (None, STUDENT):
        return download(parsed, str(parsed.file))
    facts = download(parsed, FACTS)
    further = read_json(facts, f"push {parsed.name} again").get(FURTHER, [])
    for name in further if isinstance(further, list) else []:
        if not isinstance(name, str) or name.startswith("/") or ".." in name:
            raise UserError(f"{FACTS} of {source} names the file {name!r}; push it again")
        download(parsed, name)
    return download(parsed, STUDENT)


def download(source: HubSource, file: str) -> Path:
    """Return one file of a repository on this machine.

    Raises:
        UserError: As `hub_file`.
    """
    hub = huggingface_hub()
    try:
        path: str = hub.hf_hub_download(
            source.name,
            file,
            revision=source.revision,
            endpoint=endpoint(),
            library_name="tutelage",
        )
    except Exception as error:
        raise hub_error(error, source.name, file) from error
    return Path(path)


def huggingface_hub() -> Any:
    """Return the package.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise NotInstalledError("the Hub", "huggingface_hub") from error
    module: ModuleType = hub
    return module


def endpoint() -> str | None:
    """Return the server that is set; None is huggingface.co."""
    return os.environ.get("HF_ENDPOINT") or None


def hub_error(error: Exception, name: str, file: str = "") -> UserError:
    """Return the sentence for what huggingface_hub raised.

    Args:
        error: what was raised.
        name: of the repository.
        file: in it, if one was asked for.
    """
    from huggingface_hub import errors

    what = f"{SCHEME}{name}{'/' if file else ''}{file}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return UserError(
            f"{what}: you have no access; ask for it on its page, and give a token that has it: "
            "hf auth login, or HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{what}: there is no such revision; check what follows the @")
    # Of a private repository the Hub does not say that it exists.
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return UserError(
            f"{what}: there is no such repository, or it is private and there is no token for it; "
            "check the name, and log in with hf auth login, or set HF_TOKEN"
        )
    # A subclass of EntryNotFoundError, and no word about the file: the Hub was not reached.
    if isinstance(error, errors.LocalEntryNotFoundError):
        return UserError(
            f"{what} is not in the cache, and {endpoint() or 'huggingface.co'} cannot be reached; "
            "check the connection, HF_ENDPOINT and HF_HUB_OFFLINE"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return UserError(f"{what}: there is no such file; look at the files of the repository")
    return UserError(
        f"{what}: {reason(error)}; check the connection to {endpoint() or 'huggingface.co'}, "
        "HF_ENDPOINT and HF_TOKEN"
    )
