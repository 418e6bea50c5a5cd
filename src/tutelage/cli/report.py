"""`tutelage report`: one HTML page, or a picture of the heat maps, of a run, a study or a comparison."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.errors import UserError
from tutelage.report import write_picture, write_report


def run(arguments: argparse.Namespace) -> int:
    """Write the page, or the picture when --out ends in .png or .svg, and print its path."""
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
