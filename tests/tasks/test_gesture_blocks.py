"""Blank lines are structure: recordings are found, cut and dropped block by block."""

import numpy as np
import pytest
from gesture_text import HEADER, another, motion, rows, text

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.gestures.files import SAMPLES, read_gestures

TORN = {  # the first, the middle and the last of three recordings: its content, line and seeds left
    "first": (HEADER + "\n" + "\n".join(rows(40, 7)) + "\n" + another(1) + another(2), 2, 40),
    "middle": (text(1, 0) + another(7, 100) + another(2), SAMPLES + 3, 100),
    "last": (text(1, 0) + another(1) + another(7, 118), 2 * SAMPLES + 4, 118),
}
KEPT = {"first": (1, 2), "middle": (0, 2), "last": (0, 1)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sup.csv").write_text(text(1, 2))
    return tmp_path


def of_hi(folder, content, partial="refuse"):
    """What is read of hi.csv, beside another gesture."""
    (folder / "hi.csv").write_text(content)
    found = read_gestures(folder, partial)
    return found.motion[found.gesture == 0]


@pytest.mark.parametrize("name", TORN)
def test_a_torn_recording_is_named_with_its_first_line(folder, name):
    content, line, count = TORN[name]
    with pytest.raises(DataError) as refusal:
        of_hi(folder, content)
    words = str(refusal.value)
    assert f"hi.csv, line {line}: a block of {count} rows" in words
    assert "--partial drop" in words


@pytest.mark.parametrize("name", TORN)
def test_a_torn_recording_alone_is_dropped_and_counted(folder, name):
    content, line, count = TORN[name]
    with pytest.warns(UserWarning, match=f"hi.csv: dropped .*: {count} rows from line {line}$"):
        found = of_hi(folder, content, "drop")
    assert (found == motion(*KEPT[name])).all()


def test_two_torn_recordings_whose_rows_are_one_are_none(folder):
    """By their sum alone, 119 + 60 + 59 rows are two recordings."""
    content = text(1, 0) + another(5, 60) + another(6, 59)
    with pytest.raises(DataError, match=r"line 122: 60 rows, and 59 after a blank line, are one"):
        of_hi(folder, content)
    with pytest.warns(UserWarning, match="60 rows from line 122, 59 rows from line 183"):
        assert (of_hi(folder, content, "drop") == motion(0)).all()


@pytest.mark.parametrize("between", ["\n\n", "\n\n\n", "\n\n\n\n"])
def test_where_each_row_has_a_blank_line_larger_gaps_are_the_structure(folder, between):
    whole, torn = text(1, 0).replace("\n", "\n\n"), "\n\n".join(rows(100, 7)) + "\n\n"
    more = another(2).strip().replace("\n", "\n\n") + "\n\n"
    if between == "\n\n":  # no larger gap: one block, whose rows are 338
        with pytest.raises(DataError, match=r"line 3: 338 rows .* cannot be told"):
            of_hi(folder, whole + torn + more)
        return
    content = whole.strip("\n") + between + torn.strip("\n") + between + more
    with pytest.raises(DataError, match=r"a block of 100 rows"):
        of_hi(folder, content)
    with pytest.warns(UserWarning, match="dropped as no whole recording: 100 rows"):
        assert (of_hi(folder, content, "drop") == motion(0, 2)).all()


def test_recordings_without_a_blank_line_are_cut_and_said_to_be(folder):
    content = text(3, 0).replace("\n\n", "\n")
    with pytest.warns(UserWarning, match=r"hi.csv, line 2: 357 rows .* 3 recordings of 119$"):
        assert (of_hi(folder, content) == motion(0, 1, 2)).all()


def test_which_recording_is_torn_is_not_guessed_where_no_blank_line_tells(folder):
    """A torn first recording would shift all that follow, were the tail dropped."""
    content = HEADER + "\n" + "\n".join(rows(100, 7) + rows(SAMPLES, 1) + rows(SAMPLES, 2)) + "\n"
    with pytest.raises(DataError, match=r"line 2: 338 rows .* 2 recordings of 119 and 100 rows"):
        of_hi(folder, content)
    with (
        pytest.warns(UserWarning, match="338 rows from line 2"),
        pytest.raises(DataError, match="no whole recording"),
    ):
        of_hi(folder, content, "drop")


def test_a_header_again_ends_a_block_as_a_reset_board_prints_it(folder):
    again = text(1, 1)
    assert (of_hi(folder, text(1, 0) + again) == motion(0, 100)).all()
    with pytest.raises(DataError, match=rf"line {SAMPLES + 3}: a block of 30 rows"):
        of_hi(folder, text(1, 0) + HEADER + "\n" + "\n".join(rows(30, 7)) + "\n" + again)


def test_a_row_cut_short_matters_only_where_its_block_is_kept(folder):
    torn = text(1, 0) + another(7, 50)[:-20] + "\n"
    with pytest.raises(DataError, match=r"line 171: has [1-5] of the header's 6 cells"):
        of_hi(folder, torn)
    with pytest.warns(UserWarning, match="50 rows from line 122"):
        assert (of_hi(folder, torn, "drop") == motion(0)).all()


@pytest.mark.parametrize("seed", range(5))
def test_random_blocks_are_kept_exactly_where_they_are_whole(folder, seed):
    rng = np.random.default_rng(seed)
    counts = rng.choice([SAMPLES, SAMPLES, 1, 60, 118, 120, 137], 12)
    counts[rng.integers(12)] = SAMPLES
    counts[rng.integers(12)] = 99
    content = HEADER + "\n" + "".join(another(s, c) for s, c in enumerate(counts))
    whole = np.flatnonzero(counts == SAMPLES)
    with pytest.warns(UserWarning, match="dropped"):
        found = of_hi(folder, content, "drop")
    assert (found == motion(*whole)).all()
