"""ε, δ, noise and steps from the shell: ``python -m accountant --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from accountant.cli.flags import parser, refuse
from accountant.errors import PrivacyError


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m accountant") -> int:
    """Exit status: 0 answered, 2 refused (one line on stderr says why)."""
    arguments = parser(prog).parse_args(argv)
    try:
        arguments.answer(arguments)
    except PrivacyError as error:
        return refuse(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
