"""The command line: `tutelage train | evaluate | plan | methods | bench`.

Only what a command needs is imported, so `tutelage --help` answers at once. A user's mistake is one sentence and
exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tutelage.cli.arguments import parse
from tutelage.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 2 a mistake of the user's, 130 interrupted."""
    arguments, overrides = parse(sys.argv[1:] if argv is None else argv)
    try:
        code: int = arguments.run(arguments, overrides)
    except UserError as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tutelage: interrupted", file=sys.stderr)
        return 130
    return code
