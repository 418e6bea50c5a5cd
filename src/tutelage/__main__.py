"""`python -m tutelage` is `tutelage`; `accelerate launch -m tutelage train …` runs it on several processes."""

from __future__ import annotations

import sys

from tutelage.cli import main

if __name__ == "__main__":
    sys.exit(main())
