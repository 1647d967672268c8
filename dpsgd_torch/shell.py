"""What every command of the shell does with refusals, warnings and Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from accountant import PrivacyError
from accountant.errors import one_line as one_line

_EXTRAS = {
    "opendp": "tables",
    "pandas": "tables",
    "sklearn": "tables",
    "optuna": "search",
    "flatbuffers": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "transformers": "models",
    "peft": "models",
    "datasets": "data",
    "pyarrow": "data",
}

# what a disk or a path is to blame for; any other error of the system stays a fault of ours
_FULL, _UNFIT = "written ({}); mend that, then resume", "used ({}); name another path"
_OUTSIDE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO), _FULL),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM), _UNFIT),
}


def in_one_line(
    story: Callable[[], None],
    *,
    interrupted: str = "interrupted ",
    silent: Callable[[], bool] = lambda: False,
) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted.

    A package of an extra that is not installed is refused like a bad value.

    Args:
        silent: whether another process says why.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        try:
            story()
        except PrivacyError as error:
            if not silent():
                print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            extra = f"pip install 'dpsgd_torch[{_EXTRAS[package]}]'"
            print(f"error: {package}: is missing; {extra}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in _OUTSIDE:
                raise
            if not silent():
                where = f"{error.filename}: " if error.filename else ""
                told = f"{where}cannot be {_OUTSIDE[error.errno].format(error.strerror)}"
                print(f"error: {one_line(told)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stopped:
            if not silent():
                print(f"{interrupted}{stopped}", file=sys.stderr)
            return 130
    return 0


def first_of_all() -> bool:
    """Whether this process is the only one, or the first of those that torchrun began."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Pause the garbage collector for the imports inside, and spare it what they made.

    Modules are not garbage: looking through torch's and Opacus's again and again takes a quarter
    of the time that they take to load. In a process that has loaded torch, nothing is changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def called(door: str) -> str:
    """What the user types for a command: ``dpsgd train`` where that is how this one was begun."""
    by_name = Path(sys.argv[0]).stem == "dpsgd"
    return f"dpsgd {door}" if by_name else f"python -m dpsgd_torch.{door}"


class Parser(argparse.ArgumentParser):
    """The flags of a command; what is no flag, or has no such value, is refused in one line.

    Args:
        door: the command.
        refusal: the error that says what is refused.
        more: what is typed between the command and its --help.
    """

    def __init__(
        self, door: str, refusal: type[PrivacyError], *, more: str = "", **settings: Any
    ) -> None:
        super().__init__(prog=called(door), **settings)
        self._refusal, self._help = refusal, f"{called(door)} {more}--help"

    def error(self, message: str) -> NoReturn:
        raise self._refusal(f"{message}; see {self._help}")


def whole_number(least: int) -> Callable[[str], int]:
    """The type of a flag that takes whole numbers from ``least`` on, also written 124e6.

    >>> whole_number(1)("6e4")
    60000
    """

    def read(text: str) -> int:
        try:
            value = float(text)
            if value == int(value) >= least:
                return int(value)
        except (ValueError, OverflowError):
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number ≥ {least}")

    return read


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {one_line(message)}", file=sys.stderr)
