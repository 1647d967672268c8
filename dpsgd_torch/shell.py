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
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            print(f"{interrupted}{stopped}", file=sys.stderr)
            return 130
    return 0


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
