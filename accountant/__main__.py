"""ε, δ, noise and steps from the shell: ``python -m accountant --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from accountant.cli.flags import parser, refuse
from accountant.errors import PrivacyError


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        arguments.answer(arguments)
    except PrivacyError as error:
        return refuse(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
