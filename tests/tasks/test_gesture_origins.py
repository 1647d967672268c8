"""One file by many ways, serial monitors to spreadsheets: read alike, or the cause named."""

import re

import pytest
from gesture_text import HEADER, motion, text

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.gestures.files import read_gestures

PLAIN = text(2, 0)
LINES = PLAIN.splitlines()
STAMPS = ("12:01:33.456 -> ", "[2026-11-29 12:01:33] ", "12:01:33:456 > ", "2026-11-29T12:01:33 ")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sup.csv").write_text(text(1, 2))
    return tmp_path


def of_hi(folder, content):
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "hi.csv").write_bytes(content)
    found = read_gestures(folder)
    return found.motion[found.gesture == 0]


def semicolons(words, comma=","):
    return words.replace(",", ";").replace(".", comma)


def one(number, line):
    """The file with another line there, counted from 1."""
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]])


READ = {
    "semicolons": semicolons(PLAIN, "."),
    "semicolons and decimal commas": semicolons(PLAIN),
    "a spreadsheet of Germany": ("\ufeffsep=;\n" + semicolons(PLAIN)).replace("\n", "\r\n"),
    "a column of dates beside decimal commas": re.sub(
        r"(?m)^(.+)$", r"\1;29.11.2026", semicolons(PLAIN)
    ).replace("gZ;29.11.2026", "gZ;"),  # the column has no name
    "tabs": PLAIN.replace(",", "\t"),
    "tabs and decimal commas": PLAIN.replace(",", "\t").replace(".", ","),
    "tabs of UTF-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "spaces": PLAIN.replace(",", "  "),
    "quoted decimal commas": re.sub(r"[^,\n]+", r'"\g<0>"', PLAIN).replace(".", ","),
    "each line in quotes": re.sub(r"(?m)^(.+)$", r'"\1"', PLAIN),
    "separator rows of commas": PLAIN.replace("\n\n", "\n,,,,,\n"),
    "separator rows of commas, and a comma more everywhere": re.sub(r"(?m)$", ",", PLAIN),
    "separator rows of semicolons": semicolons(PLAIN).replace("\n\n", "\n;;;;;\n"),
    "quoted empty cells": PLAIN.replace("\n\n", '\n"","",""\n'),
    "empty columns": re.sub(r"(?m)^(.*\S.*)$", r"\1,,,", PLAIN),
    "spaces at the ends": PLAIN.replace("\n", " \t\n"),
    "blank lines first": "\n\n" + PLAIN,
    "a header before each": PLAIN.replace("\n\n", f"\n{HEADER}\n"),
    "CR CR LF": PLAIN.replace("\n", "\r\r\n"),
    "LF CR": PLAIN.replace("\n", "\n\r"),
}


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_one_way_alone_is_read_so(folder, name):
    assert (of_hi(folder, READ[name]) == motion(0, 1)).all()


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("header", [True, False], ids=["all", "all but the header"])
def test_a_serial_monitors_stamps_are_left_out_and_said_to_be(folder, stamp, header):
    """Blank lines are stamped like all others, and stay structure."""
    content = "\n".join((stamp if i or header else "") + line for i, line in enumerate(LINES))
    with pytest.warns(UserWarning, match=r"hi\.csv: time stamps before rows are left out"):
        assert (of_hi(folder, content) == motion(0, 1)).all()


def test_a_column_of_times_is_a_column_that_is_left_out(folder):
    content = "\n".join(line and f"12:01:33.456,{line}" for line in LINES)
    content = content.replace("12:01:33.456,aX", "time,aX")
    with pytest.warns(UserWarning, match="columns time are left out"):
        assert (of_hi(folder, content) == motion(0, 1)).all()


REFUSED = {
    "rows by tabs under a header by commas": (
        HEADER + "\n" + PLAIN.split("\n", 1)[1].replace(",", "\t"),
        "line 2: has tabs between its cells, and the header commas",
    ),
    "rows by semicolons under a header by commas": (
        HEADER + "\n" + semicolons(PLAIN.split("\n", 1)[1], "."),
        "line 2: has semicolons between its cells, and the header commas",
    ),
    "thousands by commas": (
        semicolons(one(2, "1:234,0,1,0,0,0"), ".").replace(":", ","),
        r"line 3, aX: is not a number with a decimal comma",
    ),
    "a point among decimal commas": (
        semicolons(one(9, "0,5,0,1,0,0,0")).replace("0;5;0;1", "0.5;0;1"),
        "line 9, aX: is not a number with a decimal comma",
    ),
    "the serial plotter's names": (
        "aX:0.1,aY:0.2,aZ:0.9,gX:1.0,gY:2.0,gZ:3.0\n" * 119,
        "line 1: is written for the serial plotter",
    ),
    "a greeting before the header": (
        "Started\nAccelerometer sample rate = 119 Hz\n" + PLAIN,
        "line 1: is not the header, which stands in line 3",
    ),
    "another header": (
        PLAIN + "aZ,aY,aX,gX,gY,gZ\n" + PLAIN,
        r"line 241: is another header than the first",
    ),
    "a row cut short": (one(7, "0.1,0.2,0.3"), "line 7: has 3 of the header's 6 cells"),
    "words between rows": (one(7, "Failed to read!"), "line 7: has 1 of the header's 6 cells"),
    "a minus of typesetters": (one(7, "\u22120.1,0,1,0,0,0"), "line 7, aX: is not a number"),
    "half of UTF-16": (PLAIN.encode("utf-16")[:-1], "is not UTF-8"),
    "Latin-1": (one(7, "0.1\xb5,0,1,0,0,0").encode("latin-1"), "line 7: is not UTF-8"),
    "blank lines alone": ("\r\n,,,\r\n\r\n", "is empty"),
    "a spreadsheet's first line alone": ("sep=;\n", "is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_its_cause(folder, name):
    content, cause = REFUSED[name]
    with pytest.raises(DataError, match=cause) as refusal:
        of_hi(folder, content)
    assert "hi.csv" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["._hi.csv", "~$hi.csv", ".~lock.hi.csv"])
def test_what_a_system_puts_beside_a_file_is_no_gesture(folder, name):
    (folder / name).write_bytes(b"\0\5\x16\7")
    of_hi(folder, PLAIN)
    assert read_gestures(folder).names == ("hi", "sup")
