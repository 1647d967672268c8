"""Recordings as they are found in the wild: handled, or refused with file, line and next move."""

import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from gesture_text import HEADER, another, rows, text

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.gestures.files import SAMPLES, read_gestures

REAL = Path(__file__).parents[3] / "shared" / "data" / "gestures" / "nano-gestures"


@pytest.fixture
def folder(tmp_path):
    """A folder of two gestures that nothing is wrong with."""
    (tmp_path / "hi.csv").write_text(text(3, 1))
    (tmp_path / "sup.csv").write_text(text(2, 2))
    return tmp_path


def test_a_file_is_a_gesture_and_its_name_the_label(folder):
    found = read_gestures(folder)
    assert found.names == ("hi", "sup")
    assert found.motion.shape == (5, SAMPLES, 6)
    assert found.gesture.tolist() == [0, 0, 0, 1, 1]
    first = [float(word) for word in rows(SAMPLES, 100)[0].split(",")]
    assert found.motion[0, 0].tolist() == first


SAME = {
    "CRLF": text(3, 1, end="\r\n"),
    "two blank lines between recordings": text(3, 1).replace("\n\n", "\n\n\n"),
    "a blank line after every row": text(3, 1).replace("\n", "\n\n"),
    "blank lines of CRLF": text(3, 1, end="\r\n").replace("\r\n", "\r\n\r\n"),
    "a byte-order mark": "\ufeff" + text(3, 1),
    "spaces in the header": text(3, 1, header="aX, aY , aZ,gX, gY,gZ"),
    "CR alone": text(3, 1, end="\r"),
    "no end to the last line": text(3, 1).rstrip("\n"),
    "a comma after every row": re.sub(r"(\d)\n", r"\1,\n", text(3, 1)),
    "quoted numbers": re.sub(r"[^,\n]+", r'"\g<0>"', text(3, 1)),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_change_the_numbers_is_taken(folder, name):
    expected = read_gestures(folder).motion
    (folder / "hi.csv").write_bytes(SAME[name].encode())
    assert (read_gestures(folder).motion == expected).all()


def test_columns_are_found_by_name(folder):
    expected = read_gestures(folder).motion
    lines = (folder / "hi.csv").read_text().splitlines()
    turned = [",".join(reversed(line.split(","))) for line in lines]
    (folder / "hi.csv").write_text("\n".join(turned) + "\n")
    assert (read_gestures(folder).motion == expected).all()


def test_a_magnetometer_is_left_out_and_said_to_be(folder):
    expected = read_gestures(folder).motion
    lines = (folder / "hi.csv").read_text().splitlines()
    more = [lines[0] + ",mX,mY", *(line and line + ",1.0,2.0" for line in lines[1:])]
    (folder / "hi.csv").write_text("\n".join(more))
    with pytest.warns(UserWarning, match="mX, mY are left out"):
        assert (read_gestures(folder).motion == expected).all()


def changed(line, column, value):
    lines = text(3, 1).splitlines()
    cells = lines[line - 1].split(",")
    cells[column] = value
    lines[line - 1] = ",".join(cells)
    return "\n".join(lines) + "\n"


REFUSED = {
    "metres a second squared": (changed(9, 1, "19.6"), "line 9, aY = 19.6", "divide m/s² by"),
    "spin in another unit": (changed(5, 3, "9999"), "line 5, gX = 9999", "degrees a second"),
    "NaN": (changed(12, 2, "nan"), "line 12, aZ", "not a number"),
    "an empty cell": (changed(12, 5, ""), "line 12, gZ", "not a number"),
    "infinity": (changed(3, 0, "inf"), "line 3, aX", "not a number"),
    "text": (changed(200, 0, "oops"), "line 200, aX", "not a number"),
    "decimal commas": (text(3, 1).replace(".", ","), "line 2: has more than", "with a point"),
    "one cell too many": (changed(7, 5, "1.0,2.0"), "line 7: has more than", "6 cells"),
    "a quote that never ends": (changed(50, 0, '"1.0'), "line 50", "close the quote"),
    "a byte that is no text": (text(60, 1) + "\udcff", f"line {60 * (SAMPLES + 1) + 1}", "UTF-8"),
    "an empty file": ("", "is empty", "take it away"),
    "a header alone": (HEADER + "\n", "no whole recording", "119"),
    "another header": ("x,y\n1,2\n", "line 1: lacks aX, aY", HEADER),
    "no header": ("\n".join(rows(SAMPLES)), "line 1: lacks", HEADER),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(folder, name):
    content, where, what = REFUSED[name]
    (folder / "hi.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as refusal:
        read_gestures(folder)
    words = str(refusal.value)
    assert "hi.csv" in words
    assert where in words
    assert what in words
    assert "\n" not in words
    assert not re.search(r"\d[.,]\d+,-?\d", words)  # no row of numbers


def test_a_tilted_board_in_metres_a_second_squared_is_refused_though_no_value_is_large(folder):
    tilted = ",".join(["5.66"] * 3 + ["1.0"] * 3) + "\n"
    (folder / "hi.csv").write_text(HEADER + "\n" + tilted * SAMPLES)
    with pytest.raises(DataError, match=r"hi.csv, line 2: acceleration is 9.8 .* divide m/s²"):
        read_gestures(folder)


def test_an_ending_in_capitals_is_a_gesture_too(folder):
    (folder / "sup.csv").rename(folder / "SUP.CSV")
    assert sorted(read_gestures(folder).names) == ["SUP", "hi"]


@pytest.mark.parametrize("more", [",aX", ",aX ", ", aX"])
def test_a_column_that_stands_twice_is_refused(folder, more):
    lines = text(3, 1).splitlines()
    (folder / "hi.csv").write_text("\n".join([HEADER + more, *(f"{row},0" for row in lines[1:])]))
    with pytest.raises(DataError, match=r"hi\.csv: has the column aX twice"):
        read_gestures(folder)


@pytest.mark.filterwarnings("error")
def test_commas_at_the_end_of_every_line_are_no_column(folder):
    expected = read_gestures(folder).motion
    (folder / "hi.csv").write_text(text(3, 1).replace("\n", ",\n"))
    assert (read_gestures(folder).motion == expected).all()


@pytest.mark.parametrize("letter", ["\x0c", "\x1c", "\x85", "\u2028"])
def test_a_line_is_counted_as_an_editor_counts_it(folder, letter):
    (folder / "hi.csv").write_text(changed(12, 0, f"o{letter}o"))
    with pytest.raises(DataError, match="line 12, aX"):
        read_gestures(folder)


def test_a_file_cut_by_a_power_failure_is_refused_in_a_short_line(folder):
    with open(folder / "hi.csv", "ab") as file:
        file.write(b"\0" * 4096)
    with pytest.raises(DataError, match=f"line {4 + 3 * SAMPLES}: holds zero bytes") as refusal:
        read_gestures(folder)
    assert len(str(refusal.value)) < 500


def test_a_line_is_counted_with_the_blank_ones(folder):
    (folder / "hi.csv").write_text(changed(10, 0, "x").replace("\n", "\r\n\r\n"))
    with pytest.raises(DataError, match="line 19, aX"):
        read_gestures(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "hi.csv").write_bytes(b"\xff\xfe\x00" + text().encode("utf-16"))
    with pytest.raises(DataError, match=r"hi\.csv"):
        read_gestures(folder)


def test_values_a_little_beyond_the_range_are_clamped_and_counted(folder):
    (folder / "hi.csv").write_text(changed(2, 0, "4.3"))
    with pytest.warns(UserWarning, match="1 values beyond"):
        assert read_gestures(folder).motion[0, 0, 0] == 4.0


def test_the_same_recording_under_two_gestures_is_refused_with_both_places(folder):
    (folder / "sup.csv").write_text(text(2, 2) + another(101))
    with pytest.raises(DataError) as refusal:
        read_gestures(folder)
    assert f"hi.csv, line {3 + SAMPLES}" in str(refusal.value)
    assert f"sup.csv, line {4 + 2 * SAMPLES}" in str(refusal.value)


def test_the_same_recording_twice_is_taken_once(folder):
    expected = read_gestures(folder)
    (folder / "hi.csv").write_text(text(3, 1) + another(101))
    with pytest.warns(UserWarning, match="1 recordings stand twice"):
        found = read_gestures(folder)
    assert (found.motion == expected.motion).all()
    assert found.gesture.tolist() == expected.gesture.tolist()


def test_one_gesture_alone_is_refused(folder):
    (folder / "sup.csv").unlink()
    with pytest.raises(DataError, match=r"hi.csv alone; needs a file a gesture"):
        read_gestures(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="no CSV file"):
        read_gestures(tmp_path / "nowhere")


def test_a_large_file_takes_seconds(folder):
    rng = np.random.default_rng(0)
    block = rng.normal(0, [0.5] * 3 + [100.0] * 3, (SAMPLES * 1800, 6))
    with open(folder / "hi.csv", "w") as file:
        file.write(HEADER + "\n")
        np.savetxt(file, block, "%.3f", ",")
    started = time.process_time()
    with pytest.warns(UserWarning, match="cut into 1800 recordings"):
        assert len(read_gestures(folder).motion) == 1802
    assert time.process_time() - started < 3  # 9 MB; cell by cell it takes a minute


@pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not on this machine")
def test_real_recordings_are_read_whole():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_gestures(REAL)
    assert found.names == ("circ", "flex", "hori", "punch", "vert")
    assert np.bincount(found.gesture).tolist() == [48, 26, 98, 16, 77]
