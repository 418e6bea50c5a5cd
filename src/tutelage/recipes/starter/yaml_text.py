"""YAML with comments, for people who edit it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

WIDTH = 100


def entry(key: str, value: Any, remark: str | None = None, *, depth: int = 0) -> str:
    """Return the lines of one key, with a comment beside it, or above it if that is too long.

    >>> print(entry("size", 32, "side in pixels", depth=1))
      size: 32  # side in pixels

    Args:
        key: the key.
        value: of numbers, texts, lists and mappings.
        remark: the comment.
        depth: of nesting.
    """
    indent = "  " * depth
    text = f"{indent}{key}: {_flow(value)}"
    if len(text) > WIDTH and isinstance(value, Mapping):
        # One argument a line, as far as that is needed.
        text = "\n".join(
            [f"{indent}{key}:", *(entry(k, v, depth=depth + 1) for k, v in value.items())]
        )
    elif len(text) > WIDTH:
        text = textwrap.fill(
            text,
            WIDTH,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    if remark is None:
        return text
    beside = f"{text}  # {remark}"
    if "\n" not in text and len(beside) <= WIDTH:
        return beside
    return f"{comment(remark, depth=depth)}\n{text}"


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(
        value,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return dumped.removesuffix("\n").removesuffix("\n...")


def comment(text: str, *, depth: int = 0) -> str:
    """Return a comment, wrapped.

    >>> print(comment("for people", depth=1))
      # for people
    """
    indent = "  " * depth
    return "\n".join(
        textwrap.fill(
            paragraph,
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for paragraph in text.splitlines()
    )


def section(
    key: str, class_path: str, arguments: Mapping[str, Any], remarks: Mapping[str, str]
) -> str:
    """Return a class with its arguments, one a line with its comment."""
    lines = [f"{key}:", f"  class_path: {class_path}", "  init_args:"]
    lines += [entry(name, value, remarks.get(name), depth=2) for name, value in arguments.items()]
    return "\n".join(lines)
