"""Factors by name: what ``--noise correlated:KIND:BANDS`` asks for."""

from __future__ import annotations

from collections.abc import Callable

from accountant.errors import check
from accountant.factorization.bandmf import bandinvmf, bandmf
from accountant.factorization.blt import blt
from accountant.factorization.factor import Factor
from accountant.factorization.participation import Participation
from accountant.factorization.square_roots import banded_inverse_sqrt, banded_sqrt

Make = Callable[[int, int, Participation | None], Factor]

KINDS: dict[str, Make] = {
    "bandmf": bandmf,
    "bandinvmf": bandinvmf,
    "blt": blt,
    "banded_sqrt": lambda steps, bands, participation: banded_sqrt(steps, bands),
    "banded_inverse_sqrt": lambda steps, bands, participation: banded_inverse_sqrt(steps, bands),
}

BANDS, BUFFERS = 16, 3  # where a kind is named alone


def usual(kind: str) -> int:
    """Bands, or buffers, of a kind that is named alone.

    >>> usual("bandmf"), usual("blt")
    (16, 3)
    """
    return BUFFERS if kind == "blt" else BANDS


def factor_of(text: str, steps: int, participation: Participation | None = None) -> Factor:
    """The factor that ``KIND:BANDS`` names; bands − 1 noise vectors are kept, or ``blt``'s buffers.

    Args:
        text: such as ``bandmf:16``; a kind alone has 16 bands, ``blt`` 3 buffers.
        steps: of the run; bands beyond them are left out.
        participation: what an optimised factor is made for.

    >>> factor_of("banded_sqrt:3", 100).coefficients
    (1.0, 0.5, 0.375)
    >>> factor_of("sqrt:3", 100)
    Traceback (most recent call last):
    accountant.errors.InvalidValue: factor = sqrt:3: must be KIND:BANDS; choose among bandmf, \
bandinvmf, blt, banded_sqrt, banded_inverse_sqrt, such as bandmf:16
    """
    kind, _, bands = text.partition(":")
    known = kind in KINDS and (not bands or (bands.isascii() and bands.isdigit() and int(bands)))
    check(
        bool(known),
        "factor",
        text,
        "must be KIND:BANDS",
        f"choose among {', '.join(KINDS)}, such as bandmf:16",
    )
    check(steps >= 1, "steps", steps, "must be at least 1")
    return KINDS[kind](steps, min(int(bands or usual(kind)), steps), participation)
