"""Averages and filters as text, ``kind:number``, read without torch."""

from __future__ import annotations

from accountant.errors import InvalidValue

AVERAGES = {"none": None, "ema": 0.999, "tail": 0.5}
FILTERS = {"none": None, "doppler": 0.9, "disk": 0.7}


def read(name: str, text: str) -> tuple[str, float | None]:
    """The kind and its number, the usual one where none is given.

    Raises:
        InvalidValue: no such kind, or a number outside (0, 1); a tail may be the whole run, 1.

    >>> read("average", "ema:0.99"), read("filter", "doppler"), read("average", "none")
    (('ema', 0.99), ('doppler', 0.9), ('none', None))
    """
    kinds = {"average": AVERAGES, "filter": FILTERS}[name]
    kind, _, told = text.partition(":")
    usual = kinds.get(kind)
    others = ", ".join(f"{each}:{number}" for each, number in kinds.items() if number)
    rule = f"must be none, or one of {others}, with a number of your own between 0 and 1"
    if kind not in kinds or (usual is None and told):
        raise InvalidValue(f"{name} = {text}: {rule}")
    if not told:
        return kind, usual
    try:
        number = float(told)
    except ValueError:
        number = 0.0
    if not (0 < number < 1 or (kind == "tail" and number == 1)):
        raise InvalidValue(f"{name} = {text}: {rule}")
    return kind, number
