"""Predictions in the competition's format: exact, and whole or not there."""

import numpy as np
import pandas as pd
import pytest

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.drug_responses.files import write_submission


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_submission_read_back_by_pandas_equals_what_was_given(tmp_path, dtype):
    chance = np.random.default_rng(3).random((5, 3)).astype(dtype)
    chance[0] = 0, 1, 1e-9
    path = tmp_path / "new" / "submission.csv"
    write_submission(path, [f"id_{i}" for i in range(5)], ["a, b", "b", "c"], chance)
    found = pd.read_csv(path)
    assert list(found.columns) == ["sig_id", "a, b", "b", "c"]
    assert list(found["sig_id"]) == [f"id_{i}" for i in range(5)]
    ulp = 2 * np.finfo(np.float64).eps  # to which some versions of pandas read
    np.testing.assert_allclose(found["b"].astype(dtype), chance[:, 1], rtol=ulp)
    exact = pd.read_csv(path, dtype=str).iloc[:, 1:].map(float).to_numpy()
    assert (exact.astype(dtype) == chance).all()


def test_a_submission_that_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("before")
    broken = ["id_0", "\udcff"]  # which UTF-8 cannot write
    with pytest.raises(UnicodeEncodeError):
        write_submission(path, broken, ["a"], np.zeros((2, 1)))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("ids", "chance", "words"),
    [
        (["x", "y"], np.zeros((2, 3)), r"shape \(2, 3\); must be \(rows, labels\) = \(2, 2\)"),
        (["x", "x"], np.zeros((2, 2)), r"ids = 2: only 1 differ"),
        (["x", "y"], np.array([[0, 0], [0, 1.5]]), r"= 1.5 at y, b: must lie in \[0, 1\]"),
        (["x", "y"], np.array([[np.nan, 0], [0, 0]]), r"= nan at x, a: must lie"),
    ],
)
def test_a_submission_of_what_is_no_probability_is_refused(tmp_path, ids, chance, words):
    with pytest.raises(DataError, match=words):
        write_submission(tmp_path / "s.csv", ids, ["a", "b"], chance)
    assert not list(tmp_path.iterdir())
