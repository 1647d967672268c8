"""Text in a table is taken as it stands: no name is missing, and spaces around one are not it."""

import pytest

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.drug_responses.csv_table import read_header, read_table

NOT_MISSING = [
    *("None", "NA", "nan", "NaN", "null", "NULL", "N/A", "n/a", "<NA>", "#N/A", "-nan", "1.#IND"),
    *("7", "07", "7.0", "True", "inf"),
]


def read(path, *names, number="0.5"):
    """A table of these names, each as it stands in the file, and a number beside each."""
    path.write_text("name,value\n" + "".join(f"{name},{number}\n" for name in names))
    return read_table(path, read_header(path, ""), ["name"], ["value"])


def test_names_that_pandas_takes_for_missing_are_names(tmp_path):
    assert read(tmp_path / "a.csv", *NOT_MISSING).text["name"] == tuple(NOT_MISSING)


@pytest.mark.parametrize("around", ["{} ", " {}", "\t{}\t", '"{} "', '" {}"', "{}\u00a0"])
def test_spaces_around_a_name_are_none_of_it(tmp_path, around):
    found = read(tmp_path / "a.csv", "drug", around.format("drug"), around.format("a drug"))
    assert found.text["name"] == ("drug", "drug", "a drug")


@pytest.mark.parametrize("empty", ["", " ", "   ", "\t", '""', '" "', "\u00a0"])
def test_what_holds_nothing_is_empty_and_refused_with_its_line(tmp_path, empty):
    with pytest.raises(DataError, match=r"a\.csv, line 3, name: is empty"):
        read(tmp_path / "a.csv", "drug", empty, "drug")


@pytest.mark.parametrize("number", ["", " ", "NA", "None", "nan", "null", "N/A", "#N/A", "inf"])
def test_a_number_that_is_missing_is_refused_with_what_stands_there(tmp_path, number):
    with pytest.raises(DataError, match=r"line 2, value = '.*': must be a finite number") as no:
        read(tmp_path / "a.csv", "drug", number=number)
    assert f"{number.strip()!r}" in str(no.value)
