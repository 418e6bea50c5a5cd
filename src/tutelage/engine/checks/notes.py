"""What the checks say without stopping a run."""

from __future__ import annotations

import os
import sys


def warn(text: str) -> None:
    """Print a warning on standard error, by the first rank only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {text}", file=sys.stderr)
