"""Last words: what ends one of several processes is told to the others before it is gone."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from accountant import PrivacyError
from dpsgd_torch.shell import one_line


class Told(Protocol):
    """What ``World`` is to whoever ends."""

    @property
    def speaks(self) -> bool: ...

    def give_up(self, error: BaseException) -> BaseException: ...


def saying_last_words(world: Told) -> None:
    """Have an error that nobody catches, in the user's own code too, end all ranks.

    An error of ours is one line, from the one that speaks; another's traceback is shown where it
    was raised. The exit status is 2.
    """
    before = sys.excepthook
    if getattr(before, "of_dpsgd_torch", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        told = world.give_up(error)
        if not isinstance(told, PrivacyError):
            before(kind, error, trace)
        elif world.speaks:
            print(f"error: {one_line(told)}", file=sys.stderr, flush=True)
        raise SystemExit(2)

    hook.of_dpsgd_torch = True  # type: ignore[attr-defined]
    sys.excepthook = hook
