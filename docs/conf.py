"""The documentation site: `make docs` builds it into docs/_build/html.

The pages are plain Markdown that reads well without the site, so what only the site needs is here:
the navigation, which is added to the landing page while it is read, and how docstrings, which are
written for `help()`, become reStructuredText.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

project = "tutelage"
author = "The tutelage authors"
copyright = "The tutelage authors, Apache-2.0"
release = version = installed_version("tutelage")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}  # notebooks: `for_the_site`
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # a page may begin with a small heading

html_theme = "furo"
html_title = "tutelage"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
autosummary_imported_members = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"

NAVIGATION = {
    "Tutorials": [
        "tutorials/classifier",
        "tutorials/detector",
        "tutorials/query-encoder",
        "tutorials/compare",
        "notebooks/loss-in-your-loop",
        "notebooks/which-layers",
    ],
    "How-tos": [
        "own-data",
        "recipes",
        "detection",
        "segmentation",
        "pose",
        "retrieval",
        "recommendation",
        "similarity",
        "tune",
        "report",
        "serve",
        "machines",
        "reproducibility",
        "add-a-method",
    ],
    "Methods": ["methods/index"],
    "Reference": ["reference/index", "glossary", "architecture"],
    "Results": ["results", "comparison"],
    "About": ["about", "contributing", "changelog"],
}
# Page of the reference → package. A name that several packages offer is described by the first one.
PACKAGES = {
    "reference/methods": "tutelage.methods",
    "reference/tasks": "tutelage.tasks",
    "reference/data": "tutelage.data",
    "reference/models": "tutelage.models",
    "reference/engine": "tutelage.engine",
    "reference/recipes": "tutelage.recipes",
    "reference/deploy": "tutelage.deploy",
    "reference/similarity": "tutelage.similarity",
    "reference/analysis": "tutelage.analysis",
    "reference/cache": "tutelage.cache",
    "reference/report": "tutelage.report",
    "reference/tutelage": "tutelage",
}
PAGES_BELOW = """

```{toctree}
:glob:
:maxdepth: 1

*
```
"""


def for_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Make a page of the site of a source file.

    It adds what only the site has: the sidebar's sections, lists of pages, the names of packages.
    """
    text = source[0]
    if page.startswith("notebooks/"):
        text = notebook_as_markdown(json.loads(text))
    text = text.replace("](../CONTRIBUTING.md", "](contributing.md")
    text = text.replace("](../CHANGELOG.md", "](changelog.md")
    text = re.sub(r"\[([^]]+)\]\(([./\w-]+)\)", without_folder_link(app, page), text)
    if page in PACKAGES:
        text += names_of(PACKAGES[page])
    if page in ("methods/index", "reference/index"):
        text += PAGES_BELOW
    if page == "index":
        for caption, pages in NAVIGATION.items():
            listed = "\n".join(pages)
            text += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"
    source[0] = text


def without_folder_link(app: Sphinx, page: str) -> Callable[[re.Match[str]], str]:
    """Return a replacement of links to folders, which a site does not have, by their text."""
    folder = (Path(app.srcdir) / page).parent

    def replace(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    return replace


def notebook_as_markdown(book: dict[str, Any]) -> str:
    """Return the cells of a notebook as one page."""
    parts = []
    for cell in book["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


@cache
def homes() -> dict[int, str]:
    """Return the package that describes each object, by the object's identity."""
    found: dict[int, str] = {}
    for package in PACKAGES.values():
        module = import_module(package)
        for name in module.__all__:
            found.setdefault(id(getattr(module, name)), package)
    return found


def names_of(package: str) -> str:
    """Return a table of the public names of a package, and each with its docstring."""
    module = import_module(package)
    here = [name for name in module.__all__ if homes()[id(getattr(module, name))] == package]
    elsewhere: dict[str, list[str]] = {}
    for name in module.__all__:
        home = homes()[id(getattr(module, name))]
        if home != package:
            elsewhere.setdefault(home, []).append(f"``{name}``")
    lines = [f".. currentmodule:: {package}", ""]
    for home, names in elsewhere.items():
        lines += [f"Also here, and described with `{home}`: {', '.join(names)}.", ""]
    lines += [".. autosummary::", "   :nosignatures:", "", *[f"   {name}" for name in here]]
    for name in here:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            lines += ["", f".. autoclass:: {name}", "   :members:"]
        elif inspect.isroutine(thing):
            lines += ["", f".. autofunction:: {name}"]
        else:
            lines += ["", f".. autodata:: {name}"]
    return "\n\n```{eval-rst}\n" + "\n".join(lines) + "\n```\n"


def docstring_to_rst(
    app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Turn a docstring into reStructuredText before Napoleon reads its sections.

    An indented block behind an empty line is a formula or a table, which stays as it is written.
    Outside of code, `*` and `|` are meant as they are.
    """
    written: list[str] = []
    in_block = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        after_empty = number > 0 and not lines[number - 1].strip()
        if line.strip() and not indented:
            in_block = False
        if indented and after_empty and not in_block and not in_section(lines[:number]):
            in_block = True
            written += ["::", ""]
        plain = not in_block and not line.lstrip().startswith((">>>", "..."))
        written.append(escaped(line) if plain else line)
    lines[:] = written


def in_section(before: list[str]) -> bool:
    """Return whether the lines end inside a section such as `Args:`."""
    outer = [line for line in before if line.strip() and not line.startswith(" ")]
    return (
        bool(outer)
        and re.fullmatch(r"(Args|Returns|Raises|Yields|Attributes):", outer[-1]) is not None
    )


def escaped(line: str) -> str:
    """Return a line whose stars and bars outside of backticks mean themselves.

    Inside of them, reStructuredText allows no space at either end.
    """
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(
        f"`{part.strip('`').strip()}`"
        if part.startswith("`")
        else re.sub(r"([*|\\])", r"\\\1", part)
        for part in parts
    )


def setup(app: Sphinx) -> None:
    """Register both."""
    app.connect("source-read", for_the_site)
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=100)
