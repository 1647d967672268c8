"""Sequences of unequal length, in any form: what they are padded to, and what is no sequence."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch

from dpsgd_torch import Columns, DataError, Padded
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.training.fingerprint import hashed

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 30, 120)
WORDS = [torch.from_numpy(RNG.integers(1, 11, size)) for size in LENGTHS]
TAGS = [word % 3 for word in WORDS]

FORMS = {
    "tensors": WORDS,
    "lists": [words.tolist() for words in WORDS],
    "arrays": [words.numpy() for words in WORDS],
    "an array of arrays": np.array([words.numpy() for words in WORDS], dtype=object),
    "nested": torch.nested.nested_tensor(WORDS, layout=torch.jagged),
}


@pytest.mark.parametrize("form", FORMS)
def test_sequences_come_in_any_form(form):
    words = Padded(FORMS[form], 7, multiple_of=4)
    rows = np.array([5, 0, 5])
    taken, kept = words.take(rows), words.mask.take(rows)
    size = -(-int(max(LENGTHS[5], LENGTHS[0])) // 4) * 4
    assert taken.shape == kept.shape == (3, size)
    for place, row in enumerate(rows):
        assert torch.equal(taken[place][: LENGTHS[row]], WORDS[row])
        assert (taken[place][LENGTHS[row] :] == 7).all()
    assert torch.equal(kept.sum(1), torch.from_numpy(LENGTHS[rows]))
    assert hashed(words.fingerprint()) == hashed(Padded(WORDS, 7, multiple_of=4).fingerprint())


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", ["arrow", "hugging face", "torch", "transformed"])
def test_lists_in_a_table_are_padded(form, large):
    rows = {"x": [words.tolist() for words in WORDS], "y": [tags.tolist() for tags in TAGS]}
    if form == "arrow":
        kind = pa.large_list(pa.int32()) if large else pa.list_(pa.int16())
        table = pa.table({name: pa.array(values, kind) for name, values in rows.items()})
    else:
        table = datasets.Dataset.from_dict(rows).with_format("torch" if form == "torch" else None)
        if form == "transformed":
            table = table.with_transform(lambda batch: dict(batch))
    length = 40 if large else None
    data = Columns(table, targets="y", mask={"x": "seen"}, padding={"x": 9}, length=length)
    inputs, targets = data_on("cpu", data, "data").take(np.array([2, 1]))
    words = Padded([WORDS[2], WORDS[1]], 9, length=length)
    both = np.arange(2)
    assert torch.equal(inputs["x"], words.take(both))
    assert torch.equal(inputs["seen"], words.mask.take(both))
    assert torch.equal(targets, Padded([TAGS[2], TAGS[1]], -100, length=length).take(both))


def test_sequences_of_vectors_keep_their_width():
    rows = [torch.rand(size, 3) for size in (4, 0, 2)]
    taken = Padded(rows, multiple_of=1).take(np.array([2, 1]))
    assert taken.shape == (2, 2, 3)
    assert torch.equal(taken[0], rows[2])
    assert not taken[1].any()
    table = pa.table({"x": [row.tolist() for row in rows], "y": [0, 1, 2]})
    inputs, _ = Columns(table, targets="y", multiple_of=1).take(np.array([2, 1]))
    assert torch.equal(inputs["x"], taken)


REFUSED = {
    "no list": (lambda: Padded(3), "sequences = int: must be a list"),
    "numbers": (lambda: Padded([1, 2]), "row 0 = one number"),
    "words": (lambda: Padded(["a", "b"]), "row 0 = str"),
    "another width": (
        lambda: Padded([torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 4)]),
        r"row 2 has elements of torch.float32 of shape \(4,\) where others",
    ),
    "another dtype": (lambda: Padded([torch.ones(2), torch.ones(2).long()]), "row 1 has elements"),
    "a value that is none": (lambda: Padded(WORDS, 0.5), "value = 0.5: is no torch.int64"),
    "a table's other width": (
        lambda: Columns(pa.table({"x": [[[1, 2]], [[1]]] * 9, "y": [0, 1] * 9}), targets="y").take(
            np.arange(2)
        ),
        "lists within its lists are of unequal length",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_differs_in_more_than_length_is_refused_by_its_row(case):
    given, match = REFUSED[case]
    with pytest.raises(DataError, match=match) as refused:
        given()
    assert "\n" not in str(refused.value)
