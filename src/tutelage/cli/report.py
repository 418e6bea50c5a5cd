"""`tutelage report`: one HTML page, or a picture of the heat maps."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli._parser import Commands, add_command
from tutelage.errors import UserError

EXAMPLES = """
tutelage report runs/demo
tutelage report runs/digits-rcka --out rcka.html
tutelage report runs/compare --out map.svg
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "report",
        "write one HTML page about a run, a study or a comparison",
        examples=EXAMPLES,
    )
    command.add_argument(
        "folder", metavar="FOLDER", help="what `train`, `study` or `compare` wrote to its --out"
    )
    command.add_argument(
        "--out",
        help="file: .html for the page, .png or .svg for its heat maps "
        "(default: FOLDER/report.html)",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Write the page, or the picture if --out ends in .png or .svg, and print its path."""
    from tutelage.report import write_picture, write_report

    folder = Path(arguments.folder)
    out = folder / "report.html" if arguments.out is None else Path(arguments.out)
    if out.suffix in (".html", ".htm"):
        write_report(folder, out)
    elif out.suffix in (".png", ".svg"):
        write_picture(folder, out)
    else:
        raise UserError(f"--out {out} must end in .html (a page), .png or .svg (its heat maps)")
    print(out)
    return 0
