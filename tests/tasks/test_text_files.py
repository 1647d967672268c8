"""Texts from files: every form gives the same rows; what is wrong is named by row and column."""

import json

import datasets
import pandas as pd
import pytest

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.text.files import read_texts
from dpsgd_torch.tasks.text.records import Columns, Texts, codes_of

COLUMNS = Columns(text="text", label="label", author="author", author_required=False)
ROWS = {
    "text": ["Hello, you", "two\nlines", "naïve", "x"],
    "label": ["a", "b", "a", "b"],
    "author": ["ann", "bob", "ann", "cy"],
}
EXPECTED = Texts(*(tuple(column) for column in ROWS.values()))


def written(folder, form):
    table = pd.DataFrame(ROWS)
    path = folder / f"texts.{form}"
    if form == "csv":
        table.to_csv(path, index=False)
    elif form == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif form == "parquet":
        table.to_parquet(path)
    else:
        datasets.Dataset.from_dict(ROWS).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "dataset"])
def test_every_form_gives_the_same_texts(form, tmp_path):
    assert read_texts(written(tmp_path, form), COLUMNS) == (EXPECTED, None)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_folder_has_one_such_file_or_train_and_test(form, tmp_path):
    first = written(tmp_path, form)
    assert read_texts(tmp_path, COLUMNS) == (EXPECTED, None)
    first.rename(tmp_path / f"train.{form}")
    written(tmp_path, form).rename(tmp_path / f"test.{form}")
    assert read_texts(tmp_path, COLUMNS) == (EXPECTED, EXPECTED)


def test_a_saved_dataset_dict_gives_train_and_test_and_the_names_of_its_labels(tmp_path):
    named = {**ROWS, "label": [0, 1, 0, 1]}
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["a", "b"]),
        author=datasets.Value("string"),
    )
    part = datasets.Dataset.from_dict(named, features=features)
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "saved"))
    assert read_texts(tmp_path / "saved", COLUMNS) == (EXPECTED, EXPECTED)


def test_plain_texts_are_paragraphs_of_an_author_in_the_folder_of_their_label(tmp_path):
    for name, text in (("ham/ann.txt", "one\n\ntwo\nlines\n \n"), ("spam/bob.txt", "three")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    train, test = read_texts(tmp_path, COLUMNS)
    assert test is None
    assert train.texts == ("one", "two\nlines", "three")
    assert train.labels == ("ham", "ham", "spam")
    assert codes_of(train.authors).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("t.csv", "text,label\nx\n", r"t\.csv, line 2: has 1 cells where the header has 2"),
        ("t.csv", "text,text\nx,y\n", r"t\.csv, line 1: has the column text twice"),
        ("t.csv", 'text,label\n"a\nb",c\nx,\n', r"t\.csv, line 4, label: is empty, not text"),
        ("t.csv", 'text,label\n"a', r"t\.csv: cannot be read as csv \(Error: unexpected end"),
        ("t.csv", "words,label\nx,y\n", r"t\.csv: has no column text \(but 'words', 'label'\)"),
        ("t.csv", "text,class\nx,y\n", "has no column label .*; name it with --label-column"),
        ("t.csv", "text,label\n", r"t\.csv: holds no row"),
        ("t.csv", "", r"t\.csv: has no column text \(but none\)"),
        ("t.csv", "text,label\nx,a\x07b\n", "line 2, label: names a label and is published"),
        ("t.jsonl", '{"text": "x", "label": 1}\n\n[2]\n', r"t\.jsonl, line 3: is no JSON object"),
        ("t.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}', "line 2, label: is empty"),
        ("t.jsonl", '{"text": 7, "label": 1}', "line 1, text: is int, not text"),
        ("t.jsonl", '{"text": "x", "label": 0.5}', "line 1, label: is of type float"),
        ("t.parquet", "PAR1", r"t\.parquet: cannot be read as Parquet"),
        ("t.xml", "<x/>", r"t\.xml: is of no known kind; needs a file \.csv"),
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_column(name, content, line, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=line) as told:
        read_texts(tmp_path / name, COLUMNS)
    assert "\n" not in str(told.value)


def test_what_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\nnaïve,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot be read as csv .*; save it as UTF-8 text"):
        read_texts(tmp_path / "t.csv", COLUMNS)


def test_a_folder_without_texts_or_with_too_many_says_what_it_needs(tmp_path):
    with pytest.raises(DataError, match="is no such file or folder; needs a file"):
        read_texts(tmp_path / "nowhere", COLUMNS)
    with pytest.raises(DataError, match="holds none; needs a file"):
        read_texts(tmp_path, COLUMNS)
    (tmp_path / "ann.txt").write_text("hello")
    with pytest.raises(DataError, match=r"is in no folder that names its label; move it to LABEL"):
        read_texts(tmp_path, COLUMNS)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\nx,y\n")
    with pytest.raises(DataError, match=r"has a\.csv and b\.csv; call one train and one test"):
        read_texts(tmp_path, COLUMNS)


def test_a_damaged_data_set_is_refused_and_parts_without_train_are_listed(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a saved data set"):
        read_texts(tmp_path, COLUMNS)
    part = datasets.Dataset.from_dict(ROWS)
    datasets.DatasetDict(old=part, new=part).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="has old, new, and no train"):
        read_texts(tmp_path / "saved", COLUMNS)


def test_a_row_of_a_data_set_is_named_by_its_part_and_number(tmp_path):
    rows = {**ROWS, "author": ["ann", None, "bob", "cy"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="saved, train, row 1, author: is empty"):
        read_texts(tmp_path / "saved", COLUMNS)


def test_an_author_column_that_is_asked_for_must_be_there(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", "label": "a"}))
    assert read_texts(tmp_path / "t.jsonl", COLUMNS)[0].authors is None
    asked = Columns(text="text", label="label", author="user", author_required=True)
    with pytest.raises(DataError, match=r"has no column user .*; name it with --author-column"):
        read_texts(tmp_path / "t.jsonl", asked)


def test_no_author_is_in_both_parts_of_a_split_and_it_is_the_same_every_time():
    texts = Texts(tuple(map(str, range(60))), None, tuple(str(i % 12) for i in range(60)))
    train, test = texts.split()
    assert (train, test) == texts.split()
    assert not set(train.authors) & set(test.authors)
    assert sorted((*train.texts, *test.texts), key=int) == [*texts.texts]
    assert len(set(test.authors)) == 2
    with pytest.raises(DataError, match="has 4 authors; needs 5 at least"):
        texts.rows(codes_of(["0", "1", "2", "3"])).split()


def test_a_line_of_nothing_but_brackets_is_refused_by_its_number(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match="line 2: is no JSON object"):
        read_texts(path, Columns("text", "label", None, False))
