"""Class paths of the user's own: files, modules beside the recipe, factories without types.

A network may be named in any of these ways:

    class_path: mynet.Net                  # mynet.py beside the recipe, or in the working folder
    class_path: ./mynet.py:Net             # a file, relative to the recipe or the working folder
    class_path: timm.create_model          # a function; its keywords may stand under init_args
    class_path: transformers.AutoModelForImageClassification   # its from_pretrained is called
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tutelage.errors import UserError, near_misses, reason
from tutelage.recipes._lookup import resolve

FILE = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")
NETWORK = re.compile(rf"{FILE.pattern}|[\w.]+\.\w+")  # what may name one on the command line
NETWORKS = ("student", "teacher", "teachers")  # sections with networks
FACTORY = "from_pretrained"  # what makes a network of a class that is none itself
INSTALLED = ("site-packages", "dist-packages")


def with_own_code(
    content: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return a recipe whose class paths can be imported, and the own files that it names.

    Args:
        content: the recipe as it was read.
        folder: of the recipe.

    Returns:
        The recipe, and the file of each of its own modules by the module's name.

    Raises:
        UserError: If a file is missing, lacks the name, or raises when it is imported.
    """
    files: dict[str, Path] = {}
    result: dict[str, Any] = _imported(content, folder, files)
    for section in _network_sections(result):
        model = section.get("model")
        path = model.get("class_path") if isinstance(model, dict) else model
        if not isinstance(path, str):
            continue
        made = _make_factory(path)
        if isinstance(model, dict):
            section["model"] = {**model, "class_path": made}
        elif made != path:
            section["model"] = made
    return result, files


def overrides_with_own_code(overrides: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Return overrides whose networks can be imported, and the own files that they name.

    Relative paths start from the working folder, where the command is given.

    >>> overrides_with_own_code(["--student.model", "timm.create_model", "--train.epochs=3"])
    (['--student.model', 'timm.create_model', '--train.epochs=3'], {})

    Args:
        overrides: as on the command line: `--key value`, or `--key=value`.

    Raises:
        UserError: As `with_own_code`.
    """
    files: dict[str, Path] = {}
    result: list[str] = []
    awaited = ""  # the key of the option before, whose value comes next
    for option in overrides:
        key, equals, value = option.partition("=")
        is_pair = key.startswith("--") and bool(equals)
        keys = key[2:].split(".") if is_pair else awaited.split(".")
        given = value if is_pair else option
        if keys[0] in NETWORKS and NETWORK.fullmatch(given):
            try:
                given = _imported(given, Path.cwd(), files, keys[-1])
            except UserError as error:
                raise UserError(f"on the command line: {error}") from error
            if keys[-1] == "model" or keys[-2:] == ["model", "class_path"]:
                given = _make_factory(given)
        result.append(f"{key}={given}" if is_pair else given)
        awaited = option[2:] if option.startswith("--") and not equals else ""
    return result, files


def with_files(text: str, files: Mapping[str, Path]) -> str:
    """Return a recipe as text in which own modules are named by their files.

    They are then found from any folder, as a run's recipe.yaml is read.

    >>> with_files("class_path: mynet.Net", {"mynet": Path("/own/mynet.py")})
    'class_path: /own/mynet.py:Net'
    """
    for module, file in files.items():
        pattern = rf"(?<=class_path: ){re.escape(module)}\.(?=\w+$)"
        written = f"{file}:".replace("\\", "\\\\")
        text = re.sub(pattern, written, text, flags=re.MULTILINE)
    return text


def move_keyword(content: dict[str, Any], path: str, name: str) -> bool:
    """Move an argument that a function hands on to where the parser takes any.

    Args:
        content: the recipe; it is changed.
        path: class path of the function.
        name: of the argument.

    Returns:
        Whether there was such an argument.
    """
    is_moved = False
    for spec in _specs(content):
        arguments = spec.get("init_args")
        if spec.get("class_path") == path and isinstance(arguments, dict) and name in arguments:
            rest = dict(arguments)
            others = dict(spec.get("dict_kwargs") or {})
            others[name] = rest.pop(name)
            spec["init_args"] = rest
            spec["dict_kwargs"] = others
            is_moved = True
    return is_moved


def _network_sections(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    several = content.get("teachers")
    sections = [content.get("student"), content.get("teacher")]
    sections += several.values() if isinstance(several, dict) else []
    for section in sections:
        if isinstance(section, dict):
            yield section


def _specs(value: Any) -> Iterator[dict[str, Any]]:
    """Give all mappings with a class path, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value
        for entry in value.values():
            yield from _specs(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _specs(entry)


def _imported(value: Any, folder: Path, files: dict[str, Path], key: str = "") -> Any:
    """Return a value with importable class paths, and note own files."""
    if isinstance(value, Mapping):
        return {name: _imported(entry, folder, files, str(name)) for name, entry in value.items()}
    if isinstance(value, list):
        return [_imported(entry, folder, files) for entry in value]
    if not isinstance(value, str) or key not in ("class_path", "model"):
        return value
    match = FILE.fullmatch(value)
    if match:
        return _of_file(match["file"], match["name"], folder, files)
    _import_local(value, folder, files)
    return value


def _of_file(file: str, name: str, folder: Path, files: dict[str, Path]) -> str:
    """Import a file, and return the class path of a name in it."""
    given = Path(file).expanduser()
    candidates = [given] if given.is_absolute() else [folder / given, Path.cwd() / given]
    path = next((place.resolve() for place in candidates if place.is_file()), None)
    if path is None:
        places = " and ".join(dict.fromkeys(str(place) for place in candidates))
        raise UserError(f"there is no file {file} for {file}:{name}; it was looked for at {places}")
    module = _load_file(path)
    if not hasattr(module, name):
        own = [entry for entry in vars(module) if not entry.startswith("_")]
        raise UserError(f"{path} has no {name!r}{near_misses(name, own)}")
    files[module.__name__] = path
    return f"{module.__name__}.{name}"


def _load_file(path: Path) -> ModuleType:
    """Return a file as a module, whose neighbors it can import."""
    _add_to_path(path.parent)
    present = sys.modules.get(path.stem)
    if present is not None and _file_of(present) == path:
        return present
    # A name that something else has, such as `model`, gets an ending of its own.
    is_taken = present is not None or _is_elsewhere(path)
    name = f"{path.stem}_{abs(hash(str(path))) % 10**8}" if is_taken else path.stem
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _cannot_import(str(path), error) from error
    return module


def _import_local(path: str, folder: Path, files: dict[str, Path]) -> None:
    """Import the module of a class path if it lies beside the recipe or in the working folder."""
    first = path.partition(".")[0]
    if not first.isidentifier() or "." not in path:
        return
    for place in (folder.resolve(), Path.cwd()):
        if (place / f"{first}.py").is_file() or (place / first).is_dir():
            _add_to_path(place)
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        return
    origin = None if spec is None else spec.origin
    if origin is None or any(part in origin for part in INSTALLED):
        return
    if Path(origin).parent not in (folder.resolve(), Path.cwd()):
        return
    try:
        module = importlib.import_module(first)
    except Exception as error:
        raise _cannot_import(origin, error) from error
    if path.count(".") == 1 and _file_of(module) is not None:
        files[first] = Path(origin).resolve()


def _make_factory(path: str) -> str:
    """Let the parser know that a function gives a network, if it does not say so itself.

    Returns:
        The class path; of a class that only makes networks, the path of what makes them.
    """
    value = resolve(path)
    if inspect.isclass(value) and not issubclass(value, nn.Module) and hasattr(value, FACTORY):
        path = f"{path}.{FACTORY}"
        value = getattr(value, FACTORY)
    function = getattr(value, "__func__", value)
    if inspect.isfunction(function) and not _says_module(function):
        function.__annotations__["return"] = nn.Module
    return path


def _says_module(function: Any) -> bool:
    """Return whether a function says that it returns something, be it as text."""
    said = function.__annotations__.get("return")
    return said is not None and said is not Any


def _is_elsewhere(path: Path) -> bool:
    try:
        spec = find_spec(path.stem)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() != path


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _add_to_path(folder: Path) -> None:
    """Let modules of a folder be found; it comes last, to shadow nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _cannot_import(file: str, error: Exception) -> UserError:
    return UserError(
        f"{file} cannot be imported: {reason(error)}; mend it, or install what it needs"
    )
