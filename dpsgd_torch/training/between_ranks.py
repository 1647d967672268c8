"""Errors as ranks tell them to each other: a class's name and one line."""

from __future__ import annotations

from typing import TypeVar

from accountant import PrivacyError
from dpsgd_torch.errors import RunError, told

E = TypeVar("E", bound=BaseException)


def kind_and_words(error: BaseException) -> tuple[str, str]:
    """What the others are told: the class, where it is ours, and one line."""
    ours = isinstance(error, PrivacyError)
    return (type(error).__name__, str(error)) if ours else ("RunError", told(error))


def known(error: E) -> E:
    """Marked as heard by all ranks, so that none is told twice."""
    error.known_to_all = True  # type: ignore[attr-defined]
    return error


def made(kind: str, message: str, like: Exception | None = None) -> Exception:
    """An error of ours by the name of its class."""
    found = type(like) if like else _kinds().get(kind, RunError)
    return found(message)


def _kinds() -> dict[str, type[PrivacyError]]:
    found, left = dict[str, type[PrivacyError]](), [PrivacyError]
    while left:
        kind = left.pop()
        found[kind.__name__] = kind
        left += kind.__subclasses__()
    return found
