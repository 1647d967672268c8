"""What every command of the shell does with refusals, warnings and Ctrl-C."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from accountant import PrivacyError


def in_one_line(story: Callable[[], None], *, interrupted: str = "interrupted ") -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        try:
            story()
        except PrivacyError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            print(f"{interrupted}{stopped}", file=sys.stderr)
            return 130
    return 0


def one_line(message: object) -> str:
    r"""A message as one line without control characters: names in it may be anybody's.

    >>> print(one_line("a\nb \x1b[2J"))
    a b \x1b[2J
    """
    words = " ".join(str(message).split("\n"))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {one_line(message)}", file=sys.stderr)
