"""Types in the words of a recipe."""

from __future__ import annotations

import re

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Sequence": "a list",
    "tuple": "a list",
    "Tuple": "a list",
    "Mapping": "a mapping such as {a: b}",
    "TeacherConfig": "a mapping of keys such as model and weights",
    "Module": "a class path",
}
LISTS = {"int": "a list of whole numbers", "float": "a list of numbers"}


def kind_in_words(text: str) -> str:
    """Return a type, as the parser writes it, in words.

    >>> kind_in_words("<class 'int'>"), kind_in_words("Sequence[float]")
    ('a whole number', 'a list of numbers')
    >>> kind_in_words("tuple[int, int]")
    'a list of 2 whole numbers'
    """
    if "Literal" in text:
        return "one of " + text[text.index("[") :]
    if "Sequence[" in text:
        return LISTS.get(text[text.index("[") + 1 : -1], "a list")
    alike = re.search(r"[Tt]uple\[(\w+)((?:, \1)+)\]$", text)
    if alike:
        length = 1 + alike[2].count(",")
        return LISTS.get(alike[1], "a list of values").replace("of", f"of {length}")
    name = re.sub(r"\[.*\]$", "", text).removeprefix("<class '").removesuffix("'>")
    name = name.rpartition(".")[2]
    return KINDS.get(name, name)
