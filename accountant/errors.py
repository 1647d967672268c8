"""What can go wrong, and the checks that say so in one line: name, value, rule, next move.

PrivacyError
├── InvalidValue        an argument outside its domain (also a ValueError)
├── UnsupportedEvent    no analysis here for that mechanism, sampler or relation
├── Unreachable         no noise within bounds meets the target
├── BudgetExceeded      the next step would pass the budget
├── LedgerError         a ledger that is missing, damaged or used out of turn
└── Contradiction       bounds that hold nothing: a fault here, not the caller's
"""

from __future__ import annotations

_LONGEST = 1000  # characters of a message
_SHOWN = 120  # characters of a value that is refused


class PrivacyError(Exception):
    """Root of everything the accountant raises on purpose."""


class InvalidValue(PrivacyError, ValueError):
    """An argument outside its domain."""


class UnsupportedEvent(PrivacyError):
    """No analysis here for that mechanism, sampler or relation."""


class Unreachable(PrivacyError):
    """No value within bounds meets the target."""


class BudgetExceeded(PrivacyError):
    """The next step would pass the budget."""


class LedgerError(PrivacyError):
    """A ledger that is missing, damaged or used out of turn."""


class Contradiction(PrivacyError):
    """Bounds that hold nothing: a fault of this package, not of its caller."""


def check(holds: bool, name: str, value: object, rule: str, move: str = "") -> None:
    """Raise InvalidValue in the house form unless ``holds``.

    >>> check(-1 >= 0, "noise_multiplier", -1, "must be ≥ 0", "pass a positive number")
    Traceback (most recent call last):
    accountant.errors.InvalidValue: noise_multiplier = -1: must be ≥ 0; pass a positive number
    """
    if not holds:
        raise InvalidValue(f"{name} = {brief(value)}: {rule}" + (f"; {move}" if move else ""))


def brief(value: object) -> str:
    """A value in a message: not long, whoever wrote it down.

    >>> brief(0.5), len(brief("9" * 5000)), brief(10**5000)
    ('0.5', 121, 'a number of 16610 bits')
    """
    if isinstance(value, int) and value.bit_length() > 400:
        return f"a number of {value.bit_length()} bits"  # Python prints none of 4,300 digits
    text = str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def check_size(name: str, value: object) -> None:
    """Refuse a whole number that is none in floating point, as JSON may hold."""
    too_large = isinstance(value, int) and value.bit_length() > 1023
    check(not too_large, name, value, "is more than a double can hold")


def check_delta(delta: float) -> None:
    check(0 < delta < 1, "delta", delta, "must lie strictly between 0 and 1", "1e-5 is customary")


def check_count(name: str, value: float) -> None:
    check(value >= 0 and value % 1 == 0, name, value, "must be a whole number ≥ 0")
    check(value <= 2**53, name, "over 2^53", "is more than a double can count")


def one_line(message: object) -> str:
    r"""A message as one line without control characters: names in it may be anybody's.

    >>> print(one_line("a\nb \x1b[2J"))
    a b \x1b[2J
    """
    words = " ".join(str(message).split("\n"))
    if len(words) > _LONGEST:  # a flag's value may be; what to do stands at the end
        words = f"{words[: _LONGEST // 2]} … {words[-_LONGEST // 4 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words)
