"""Write a page: one HTML file with everything in it, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutelage import __version__
from tutelage.errors import UserError
from tutelage.io import write_text
from tutelage.report.blocks import Page
from tutelage.report.colors import level_styles
from tutelage.report.comparison import comparison_page
from tutelage.report.folder import folder_kind
from tutelage.report.run import run_page
from tutelage.report.search import search_page
from tutelage.report.study import study_page

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css", "figures.css", "pictures.css", "print.css")
SCRIPTS = ("tip.js", "wide.js", "sort.js", "map.js", "chart.js", "pictures.js", "print.js")


def write_report(folder: Path, out: Path) -> None:
    """Write the page of a run, a study, a search or a comparison.

    Args:
        folder: what `tutelage train`, `study`, `tune` or `compare` wrote to its --out.
        out: the HTML file.

    Raises:
        UserError: If the folder is none of these, or is incomplete, or `out` cannot be written.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder; give a file, such as {out / 'report.html'}")
    pages = {
        "run": run_page,
        "study": study_page,
        "search": search_page,
        "comparison": comparison_page,
    }
    html = render(pages[folder_kind(folder)](folder))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, html)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); choose another --out"
        ) from None


def render(page: Page) -> str:
    """Return a page as HTML; every text in it is escaped."""
    templates = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    styles = [(ASSETS / name).read_text() for name in STYLES]
    style = "\n".join([*styles, level_styles()])
    scripts = [(ASSETS / name).read_text() for name in SCRIPTS]
    script = "\n".join(["'use strict';", *scripts])
    return templates.get_template("page.html").render(
        page=page,
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """Return the hash that lets only this text pass the page's content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
