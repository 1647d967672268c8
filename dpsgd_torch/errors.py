"""What can go wrong on the training side. Each message: name, value, rule, next move.

accountant.PrivacyError
└── TrainingError
    ├── ConfigError        a flag or preset outside its domain
    ├── DataError          data that is missing, damaged or not what it claims
    ├── ModelError         a model or loss whose gradient cannot be private per example
    ├── RunError           a run folder that cannot be written or resumed
    ├── ExportError        a model, tool or flag that leads to no file for a microcontroller
    └── GuaranteeBroken    what ran is not what was planned or charged: nothing is released

UserWarning
└── PrivateDataWarning     what was found in private rows: for the screen, ε does not cover it
"""

import re
import sys
from pathlib import Path

from accountant import PrivacyError

_SHOWN = 160  # characters of a foreign message
_SHORT = 60  # characters of a value that is refused
_TENSOR = re.compile(
    r"(\w*(tensor|array|parameter|buffer)\(|(parameter|buffer) containing|\[\s*\[).*",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(?<![\w.])[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?(?!\w|\.\d)")
_LIST = re.compile(r"[\[({]\s*([-+\d…]+[\s,]+){7,}[^\])}]*[\])}]?")  # longer than a shape


class TrainingError(PrivacyError):
    """Root of everything the trainer raises on purpose."""


class ConfigError(TrainingError, ValueError):
    """A flag or preset outside its domain."""


class DataError(TrainingError):
    """Data that is missing, damaged or not what it claims."""


class ModelError(TrainingError, ValueError):
    """A model or loss whose gradient cannot be private per example."""


class RunError(TrainingError):
    """A run folder that cannot be written or resumed."""


class ExportError(TrainingError):
    """A model, tool or flag that leads to no file for a microcontroller."""


class BoardTooSmall(ExportError):
    """A board whose memory does not hold a model's image."""


class GuaranteeBroken(TrainingError):
    """What ran is not what was planned or charged: nothing is released."""


class PrivateDataWarning(UserWarning):
    """What was found in a run's rows, such as values that are not finite, before it began.

    It is local: ε covers nothing of it, so it is said on the screen and stands in no file of a run.
    ``warnings.filterwarnings("ignore", category=PrivateDataWarning)`` silences it.
    """


def told(error: BaseException) -> str:
    """A foreign exception in a message of ours: its type and first line, never weights or records.

    What a library or the user's own model raises may hold a tensor: a printed one is left out with
    all that follows it, and so are fractions and lists too long for a shape. What is raised in its
    place goes ``.with_traceback(error.__traceback__) from None``: where it happened is still
    shown, but not what the foreign exception would print.

    >>> told(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x36 and 64x3)"))
    'RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x36 and 64x3)'
    >>> told(ValueError("bad scale tensor([0.25, 0.5])"))
    'ValueError: bad scale …'
    """
    try:
        text = str(error)[: 20 * _SHOWN]
    except Exception:  # theirs to format, ours to report
        text = ""
    text = _LIST.sub("[…]", _FRACTION.sub("…", _TENSOR.sub("…", text)))
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    line = line if len(line) <= _SHOWN else line[:_SHOWN].rstrip() + "…"
    return ": ".join(filter(None, [type(error).__name__, line]))


def shown(value: object) -> str:
    """A value in a message: one line, not long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def outside() -> int:
    """A warning's ``stacklevel``, for the caller: the line of the user's that led there."""
    own, level, frame = str(Path(__file__).parent), 1, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(own):
        frame, level = frame.f_back, level + 1
    return level
