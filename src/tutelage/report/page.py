"""Write a page: one HTML file with everything in it, that loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutelage import __version__
from tutelage.errors import UserError
from tutelage.report.blocks import Page
from tutelage.report.colours import ramp_rules
from tutelage.report.comparison import comparison_page
from tutelage.report.folder import kind_of, write_text
from tutelage.report.run import run_page
from tutelage.report.study import study_page

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css", "figures.css", "pictures.css", "print.css")
SCRIPTS = ("tip.js", "sort.js", "map.js", "chart.js", "pictures.js", "print.js")


def write_report(folder: Path, out: Path) -> None:
    """Write the page of a run, a study or a comparison.

    Args:
        folder: what `tutelage train`, `bench` or `compare` left.
        out: the HTML file.

    Raises:
        UserError: the folder is none of these, is missing or half-written, or `out` cannot be written.
    """
    if out.is_dir():
        raise UserError(f"{out} is a folder; give a file, such as {out / 'report.html'}")
    pages = {"run": run_page, "study": study_page, "comparison": comparison_page}
    write_text(out, render(pages[kind_of(folder)](folder)))


def render(page: Page) -> str:
    """Return a page as HTML; every text in it is escaped."""
    templates = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "\n".join([*((ASSETS / name).read_text() for name in STYLES), ramp_rules()])
    script = "\n".join(["'use strict';", *((ASSETS / name).read_text() for name in SCRIPTS)])
    return templates.get_template("page.html").render(
        page=page,
        version=__version__,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """Return a text's hash for the page's content security policy: only this style and this script count."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
