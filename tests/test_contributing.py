"""What CONTRIBUTING.md sends a newcomer to is there, and fits on a screen."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
HOMES = ("", "dpsgd_torch", "dpsgd_torch/training", "dpsgd_torch/export", "accountant")
TESTS = ("tests", "tests/training", "tests/accounting")


def named(page: str) -> list[str]:
    """The files and folders in it."""
    return re.findall(r"`([a-z0-9_/]+(?:\.(?:py|cfg)|/))`", page)


def missing(page: str) -> list[str]:
    return [
        name
        for name in named(page)
        if not any((ROOT / home / name).exists() for home in (*HOMES, *TESTS))
    ]


def test_every_file_it_names_is_there():
    assert len(named(PAGE)) > 40
    assert not missing(PAGE)
    assert missing("`samplers/base.py` and `samplers/bose.py`") == ["samplers/bose.py"]


def test_it_fits_on_a_screen():
    assert len(PAGE.splitlines()) <= 55


def test_it_has_every_place():
    places = ["node rule", "layer rule", "sampler", "noise", "data kind", "task"]
    places += ["export operator", "board"]
    assert [place for place in places if f"| **{place}**" not in PAGE] == []
