"""Drug responses in files: what is written is read back; what is wrong is named by its place."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.drug_responses.files import COLUMNS, read_responses, write_responses
from dpsgd_torch.tasks.drug_responses.synthetic import synthetic_responses

TRAIN, TARGETS, TEST, DRUGS, SAMPLE = (
    "train_features.csv",
    "train_targets_scored.csv",
    "test_features.csv",
    "train_drug.csv",
    "sample_submission.csv",
)
MADE = synthetic_responses(150, 120, 4)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_responses(folder, *MADE)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A folder that nothing is wrong with."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def table(folder, file):
    """The cells of a file, the header first."""
    return [line.split(",") for line in (folder / file).read_text().splitlines()]


def put(folder, file, cells):
    (folder / file).write_text("".join(",".join(row) + "\n" for row in cells))


def same(found, expected):
    assert found.ids == expected.ids
    assert found.labels == expected.labels
    assert found.inputs.dtype == np.float32
    assert (found.inputs == expected.inputs).all()
    assert found.units.keys() == expected.units.keys()
    for name, codes in expected.units.items():
        assert found.units[name].dtype == np.int64
        assert (found.units[name] == codes).all()
    if expected.targets is None:
        assert found.targets is None
    else:
        assert found.targets.dtype == np.float32
        assert (found.targets == expected.targets).all()


def test_what_is_written_is_read_back_equal_but_for_what_the_layout_has_no_place_for(folder):
    train, test = read_responses(folder)
    same(train, MADE[0])
    same(test, dataclasses.replace(MADE[1], targets=None, units={}))


def test_values_of_more_decimals_are_read_back_equal_too(tmp_path):
    inputs = MADE[0].inputs.copy()
    inputs[:, 3:] = np.random.default_rng(0).uniform(-10, 10, inputs[:, 3:].shape)
    train = dataclasses.replace(MADE[0], inputs=inputs)
    write_responses(tmp_path, train, MADE[1])
    same(read_responses(tmp_path)[0], train)


def test_columns_are_the_875_of_the_public_data_in_their_order(folder):
    assert len(COLUMNS) == 875
    assert COLUMNS[:4] == ("cp_type", "cp_time", "cp_dose", "g-0")
    assert COLUMNS[774:776] == ("g-771", "c-0")
    assert COLUMNS[-1] == "c-99"
    assert table(folder, TRAIN)[0] == ["sig_id", *COLUMNS]


def test_categories_become_the_numbers_of_the_docstring(folder):
    cells = table(folder, TRAIN)
    cells[1][1:4], cells[2][1:4] = ["ctl_vehicle", "72", "D2"], ["trt_cp", "24", "D1"]
    put(folder, TRAIN, cells)
    assert read_responses(folder)[0].inputs[:2, :3].tolist() == [[1, 72, 1], [0, 24, 0]]


@pytest.mark.parametrize("file", [TRAIN, TARGETS, DRUGS, SAMPLE])
def test_rows_may_stand_in_any_order_and_are_joined_by_id(folder, file):
    header, *rows = table(folder, file)
    order = np.random.default_rng(1).permutation(len(rows))
    put(folder, file, [header, *(rows[i] for i in order)])
    train, _ = read_responses(folder)
    back = [train.ids.index(name) for name in MADE[0].ids]
    assert (train.inputs[back] == MADE[0].inputs).all()
    assert (train.targets[back] == MADE[0].targets).all()
    assert (train.units["drug_id"][back] == MADE[0].units["drug_id"]).all()
    assert (back != list(range(150))) == (file == TRAIN)


def test_columns_may_stand_in_any_order(folder):
    for file in (TRAIN, TEST, DRUGS):
        put(folder, file, [row[::-1] for row in table(folder, file)])
    same(read_responses(folder)[0], MADE[0])


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n"])
def test_line_ends_blank_lines_and_byte_order_marks_change_nothing(folder, end):
    for file in (TRAIN, TARGETS, DRUGS):
        text = "\ufeff" + (folder / file).read_text().replace("\n", end)
        (folder / file).write_bytes(text.encode())
    same(read_responses(folder)[0], MADE[0])


def test_quoted_cells_are_read_as_their_content(folder):
    for file in (TRAIN, TARGETS, DRUGS):
        text = re.sub(r"[^,\n]+", r'"\g<0>"', (folder / file).read_text())
        (folder / file).write_text(text)
    same(read_responses(folder)[0], MADE[0])


def test_without_a_drug_file_and_a_sample_there_are_no_units(folder):
    (folder / DRUGS).unlink()
    (folder / SAMPLE).unlink()
    assert read_responses(folder)[0].units == {}


def test_every_further_column_of_the_drug_file_is_a_unit(folder):
    header, *rows = table(folder, DRUGS)
    people = [f"person, {i % 7}" for i in range(len(rows))]
    more = [[*row, f'"{name}"'] for row, name in zip(rows, people, strict=True)]
    put(folder, DRUGS, [[*header, "patient_id"], *more])
    units = read_responses(folder)[0].units
    assert list(units) == ["drug_id", "patient_id"]
    assert (units["drug_id"] == MADE[0].units["drug_id"]).all()
    assert units["patient_id"].tolist() == [i % 7 for i in range(len(rows))]


def test_a_unit_of_every_row_its_own_is_read(folder):
    header, *rows = table(folder, DRUGS)
    put(folder, DRUGS, [header, *([row[0], f"drug_{i}"] for i, row in enumerate(rows))])
    assert len(set(read_responses(folder)[0].units["drug_id"])) == 150


def test_a_unit_called_none_is_a_unit_and_spaces_around_a_name_are_none_of_it(folder):
    header, *rows = table(folder, DRUGS)
    names = ["None", "NA", " None", "NA\t", "x"] * 30
    put(folder, DRUGS, [header, *([row[0], name] for row, name in zip(rows, names, strict=True))])
    assert read_responses(folder)[0].units["drug_id"].tolist() == [1, 0, 1, 0, 2] * 30


def cell(line, column, value):
    """Puts ``value`` into a cell; lines count from 1."""

    def change(cells):
        cells[line - 1][cells[0].index(column)] = value

    return change


def column_gone(name):
    def change(cells):
        place = cells[0].index(name)
        for row in cells:
            del row[place]

    return change


def column_more(name):
    def change(cells):
        for row in cells:
            row.append(name if row is cells[0] else "0")

    return change


def renamed(old, new):
    def change(cells):
        cells[0][cells[0].index(old)] = new

    return change


def only_ids(cells):
    cells[:] = [row[:1] for row in cells]


def line_gone(line):
    def change(cells):
        del cells[line - 1]

    return change


def line_again(line):
    def change(cells):
        cells.append(cells[line - 1])

    return change


def cells_gone(cells):
    del cells[8][-2:]


def all_gone(cells):
    cells.clear()


def header_alone(cells):
    del cells[1:]


ID = [MADE[0].ids[i] for i in range(150)]
LABEL = MADE[0].labels
REFUSED = {
    "a missing column": (TRAIN, column_gone("g-7"), ["line 1: lacks g-7", "another file"]),
    "missing and extra columns": (TEST, renamed("c-3", "c-x"), ["lacks c-3 and has c-x too many"]),
    "an extra column": (TRAIN, column_more("g-772"), ["line 1: has g-772 too many"]),
    "targets for features": (TRAIN, only_ids, ["lacks cp_type, cp_time, cp_dose, g-0, g-1 and"]),
    "a column twice": (TRAIN, renamed("g-1", "g-0"), ["line 1: has the column g-0 twice"]),
    "no sig_id": (DRUGS, renamed("sig_id", "id"), ["line 1: lacks sig_id"]),
    "a wrong type": (TRAIN, cell(5, "cp_type", "trt"), ["line 5, cp_type = 'trt'", "ctl_vehicle"]),
    "a wrong time": (TEST, cell(3, "cp_time", "96"), ["line 3, cp_time = '96'", "24 or 48 or 72"]),
    "a wrong dose": (TRAIN, cell(9, "cp_dose", "D3"), ["line 9, cp_dose = 'D3'", "D1 or D2"]),
    "an empty category": (TRAIN, cell(9, "cp_dose", ""), ["line 9, cp_dose: is empty"]),
    "NaN": (TRAIN, cell(12, "g-3", "nan"), ["line 12, g-3 = 'nan'", "finite"]),
    "an empty number": (TEST, cell(4, "c-99", ""), ["line 4, c-99 = ''", "finite"]),
    "infinity": (TRAIN, cell(151, "c-0", "-inf"), ["line 151, c-0 = '-inf'", "finite"]),
    "text": (TRAIN, cell(2, "g-771", "oops"), ["line 2, g-771 = 'oops'", "take the row out"]),
    "a number past all bounds": (TRAIN, cell(2, "g-5", "1e300"), ["line 2, g-5: is not a finite"]),
    "a value beyond the clip": (TRAIN, cell(7, "g-2", "10.5"), ["line 7, g-2 = 10.5", "±10"]),
    "one far below it": (TEST, cell(7, "c-2", "-123"), ["line 7, c-2 = -123", "clip it"]),
    "a short row": (TRAIN, cells_gone, ["line 9: has 874 cells where the header has 876"]),
    "a decimal comma": (TRAIN, cell(6, "g-0", "0,5"), ["line 6: has 877 cells"]),
    "an open quote": (TRAIN, cell(6, "g-0", '"0.5'), ["line 6: has 5 cells"]),
    "a zero byte": (TRAIN, cell(6, "g-0", "\0"), ["line 6: is not UTF-8 text"]),
    "a row twice": (TRAIN, line_again(4), [f"line 152: sig_id {ID[2]} stands on line 4 already"]),
    "targets twice": (TARGETS, line_again(3), [f"line 152: sig_id {ID[1]} stands on line 3"]),
    "a drug's row twice": (DRUGS, line_again(2), [f"line 152: sig_id {ID[0]} stands on line 2"]),
    "targets lost": (TARGETS, line_gone(8), [f"lacks 1 sig_id of {TRAIN}", f"{ID[6]} of line 8"]),
    "features lost": (TRAIN, line_gone(8), [f"lacks 1 sig_id of {TARGETS}", f"{ID[6]} of line 8"]),
    "drugs lost": (DRUGS, line_gone(151), ["lacks 1 sig_id", f"{ID[149]} of line 151"]),
    "another id": (DRUGS, cell(3, "sig_id", "id_x"), [f"the first {ID[1]} of line 3"]),
    "no drug": (DRUGS, cell(3, "drug_id", ""), ["line 3, drug_id: is empty"]),
    "spaces for a drug": (DRUGS, cell(3, "drug_id", "  "), ["line 3, drug_id: is empty"]),
    "NA for a type": (TRAIN, cell(4, "cp_type", "NA"), ["line 4, cp_type = 'NA'", "ctl_vehicle"]),
    "ids alone": (DRUGS, only_ids, ["line 1: has sig_id alone", "drug_id"]),
    "a target of two": (TARGETS, cell(5, LABEL[1], "2"), [f"line 5, {LABEL[1]} = 2: must be 0 or"]),
    "half a target": (TARGETS, cell(5, LABEL[3], "0.5"), [f"line 5, {LABEL[3]} = 0.5: must be 0"]),
    "a target in words": (TARGETS, cell(5, LABEL[0], "yes"), [f"line 5, {LABEL[0]} = 'yes'"]),
    "no targets": (TARGETS, only_ids, ["line 1: has no target columns"]),
    "an empty file": (TARGETS, all_gone, ["line 1: is empty"]),
    "a header alone": (TRAIN, header_alone, ["has a header and no rows"]),
    "no test rows": (TEST, header_alone, ["has a header and no rows"]),
    "other labels": (SAMPLE, renamed(LABEL[2], "kinase"), [f"lacks {LABEL[2]} and has kinase"]),
    "other test rows": (SAMPLE, line_gone(2), [f"lacks 1 sig_id of {TEST}"]),
    "a training row": (TEST, cell(2, "sig_id", ID[9]), [f"{ID[9]} stands in {TRAIN}, line 11"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(folder, name):
    file, change, words = REFUSED[name]
    cells = table(folder, file)
    change(cells)
    put(folder, file, cells)
    with pytest.raises(DataError) as refusal:
        read_responses(folder)
    message = str(refusal.value)
    assert str(folder / file) in message or f"of {file}" in message
    for expected in words:
        assert expected in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("file", [TRAIN, TARGETS, TEST])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(DataError, match=rf"{re.escape(file)}: is missing; put it there"):
        read_responses(folder)


def test_an_archive_under_a_table_s_name_is_refused(folder):
    (folder / TRAIN).write_bytes(b"PK\x03\x04\xff\xfe" * 50)
    with pytest.raises(DataError, match=r"train_features.csv, line 1: is not UTF-8 text; unpack"):
        read_responses(folder)


def test_a_line_is_counted_with_the_blank_ones(folder):
    cells = table(folder, TRAIN)
    cell(10, "g-4", "x")(cells)
    cells.insert(3, [""])
    put(folder, TRAIN, cells)
    with pytest.raises(DataError, match="line 11, g-4 = 'x'"):
        read_responses(folder)


def test_training_rows_without_targets_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"train\.targets = None"):
        write_responses(tmp_path, dataclasses.replace(MADE[0], targets=None), MADE[1])


@pytest.mark.long
def test_the_full_size_comes_back_equal(tmp_path):
    train, test = synthetic_responses()
    write_responses(tmp_path, train, test)
    found, new = read_responses(tmp_path)
    same(found, train)
    same(new, dataclasses.replace(test, targets=None, units={}))
