"""Unit ids of any hashable type, in any container: one unit is one unit, in every process."""

import datetime
import subprocess
import sys
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from small_problem import make_trainer, small_data, weights

from dpsgd_torch import DataError, Privacy, RunError, Validation
from dpsgd_torch.data.unit_ids import UnitIds, units_of
from dpsgd_torch.training.fingerprint import digest, hashed

NAMES = [f"person {number % 40:03}" for number in range(120)]
CODES = np.arange(120) % 40


class Ward(Enum):
    NORTH = 1
    SOUTH = 2


@dataclass(frozen=True)
class Person:
    ward: Ward
    number: int


class Opaque:
    pass


class Look:
    """Equal to none but itself, and written as any other."""

    def __repr__(self):
        return "Look()"


CONTAINERS = {
    "list": NAMES,
    "tuple": tuple(NAMES),
    "array of text": np.array(NAMES),
    "array of objects": np.array(NAMES, dtype=object),
    "series": pd.Series(NAMES, index=range(500, 620)),
    "categorical": pd.Categorical(NAMES, categories=sorted(set(NAMES), reverse=True)),
    "categories": pd.Series(NAMES).astype("category"),
    "index": pd.Index(NAMES),
    "arrow": pa.chunked_array([NAMES[:50], NAMES[50:]]),
    "hugging face": datasets.Dataset.from_dict({"who": NAMES})["who"],
}


def trained(**changes):
    privacy = Privacy(noise_multiplier=1.0, delta=1e-3, clip_norm=0.5, unit="person")
    return make_trainer(privacy=privacy, rows_per_unit=2, batch_size=8, epochs=1, **changes)


@pytest.mark.parametrize("container", CONTAINERS)
def test_text_is_an_id_whatever_holds_it(container):
    found = UnitIds(CONTAINERS[container], 120)
    assert np.array_equal(found.rows.codes, CODES)
    assert hashed(found.fingerprint()) == hashed(UnitIds(NAMES, 120).fingerprint())


def test_a_run_by_names_draws_the_same_units_as_one_by_their_numbers():
    named, numbered = trained(units=NAMES), trained(units=CODES)
    assert len(named.units) == named.sampling.dataset_size == 40
    draws = []
    for run in (named, numbered):
        run.open()
        draws.append(
            [
                run.sampling.draw(lambda name: np.random.default_rng(0), step, 120, run.units).rows
                for step in range(3)
            ]
        )
    assert all(map(np.array_equal, *draws))
    assert named.fit().privacy_spent().unit == "person"


@pytest.mark.parametrize(
    "make",
    [
        lambda code: (code // 7, f"n{code % 7}"),
        lambda code: uuid.UUID(int=int(code)),
        lambda code: datetime.date(2020, 1, 1) + datetime.timedelta(int(code)),
        lambda code: Person(Ward(1 + code % 2), int(code)),
        lambda code: frozenset([int(code), "x"]),
        lambda code: Path(f"patients/{code}"),
        lambda code: 2**70 + int(code),
        lambda code: f"{code}".encode(),
        lambda code: int(code) if code % 2 else f"{code}",
    ],
)
def test_whatever_is_hashable_is_an_id(make):
    ids = [make(code) for code in CODES]
    rows = units_of(ids, 120)
    assert len(rows) == 40
    together = {frozenset(np.flatnonzero(rows.codes == unit).tolist()) for unit in range(40)}
    assert together == {frozenset(np.flatnonzero(unit == CODES).tolist()) for unit in range(40)}


def test_numbers_are_ordered_by_size_and_text_as_text():
    assert units_of([2**70, 9, 10], 3).codes.tolist() == [2, 0, 1]
    assert units_of(["b", "a", "b"], 3).codes.tolist() == [1, 0, 1]


def test_ids_that_python_holds_for_equal_are_one_unit():
    assert len(units_of([1, 1.0, True, (1,), (1.0,)], 5)) == 2
    assert len(units_of([1, "1", b"1"], 3)) == 3
    assert len(units_of(pd.Series([1.0, 2.0, 1.0]), 3)) == 2


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([7, 3, 7], dtype=torch.int32),
        np.array([7, 3, 7], dtype=np.int16),
        [7, 3, 7],
        (7, 3, 7),
        [*torch.tensor([7, 3, 7])],
        [*np.array([7, 3, 7])],
    ],
)
def test_whole_numbers_keep_the_digest_they_had(ids):
    assert hashed(UnitIds(ids, 3).fingerprint()) == digest([torch.as_tensor(ids)])


@pytest.mark.parametrize("ids", [np.array([7, 3, 7])[::-1], np.array([7, 3, 7], dtype=">i8")])
def test_numbers_in_any_layout_are_numbers(ids):
    assert units_of(ids, 3).codes.tolist() == [1, 0, 1]


MISSING = {
    "None": ["a", None, "b"],
    "NaN": ["a", float("nan"), "b"],
    "NaN among numbers": np.array([1.0, np.nan, 2.0]),
    "NaT": pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-02"])),
    "NA": pd.Series([1, None, 2], dtype="Int64"),
    "no category": pd.Series(["a", None, "b"]).astype("category"),
    "within a tuple": [("a", 1), (None, 1), ("b", 1)],
    "arrow": pa.array([1, None, 2]),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_id_is_refused_by_its_row(case):
    with pytest.raises(DataError, match=r"units: the id of row 1 .* is missing") as refused:
        units_of(MISSING[case], 3)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (["a", ["b"], "c"], "row 1 .list. is not hashable"),
        (["a", Opaque(), "c"], "row 1 .Opaque. cannot be told again"),
        ([Look(), "b", Look()], "row 2 .Look. is another than that of row 0, which looks the same"),
        (["a", 0.5, "c"], "row 1 .float. is a fraction"),
        (["a", "b"], "units = 2 ids: must be one whole number for each of the 3"),
        ("abc", "units = 'abc': must be a list"),
        (np.array([["a", "b"]] * 3), r"shape \(3, 2\).*zip"),
        (7, "units = 7"),
    ],
)
def test_what_is_no_id_is_refused(ids, match):
    with pytest.raises(DataError, match=match):
        units_of(ids, 3)


def test_the_digest_and_the_numbers_are_the_same_in_every_process():
    code = (
        "from dpsgd_torch.data.unit_ids import UnitIds\n"
        "ids = UnitIds([frozenset(['a', 'b', str(i)]) for i in range(9)] + ['x', (1, 'y')], 11)\n"
        "print(ids.rows.codes.tolist(), [bytes(piece) for piece in ids.fingerprint()])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0]
    assert told[0] == told[1]


def test_a_run_resumes_with_its_ids_and_refuses_others(tmp_path):
    ids = {"units": NAMES, "run_dir": tmp_path / "run"}
    validation = Validation(tensors=small_data(30), units=NAMES[:30], noise_multiplier=5.0)
    first = trained(**ids, validation=validation)
    next(first.run())
    first.close()
    swapped = [*NAMES[1:], NAMES[0]]
    with pytest.raises(RunError, match="its data changed"):
        trained(**{**ids, "units": swapped}, validation=validation).resume()
    again = trained(**ids, validation=validation).resume().fit()
    whole = trained(units=NAMES, validation=validation, run_dir=tmp_path / "whole").fit()
    assert torch.equal(weights(again.model), weights(whole.model))
