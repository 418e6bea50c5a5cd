"""`python -m tutelage`, which `accelerate launch -m tutelage train ...` needs."""

from __future__ import annotations

import sys

from tutelage.cli import main

if __name__ == "__main__":
    sys.exit(main())
