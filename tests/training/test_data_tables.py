"""Tables of pandas, pyarrow and Hugging Face: columns by name, in memory or on disk."""

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pytest
import torch
from small_problem import make_trainer, weights
from torch import nn

from dpsgd_torch import Columns, DataError, RunError, Validation
from dpsgd_torch.data import hugging_face
from dpsgd_torch.data.checked import data_on
from dpsgd_torch.training.fingerprint import hashed

datasets.disable_progress_bars()
N = 120
INPUTS = ["age", "height", "smokes", "ward"]


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, N),
            "height": rng.normal(1.7, 0.1, N),
            "smokes": rng.random(N) < 0.3,
            "ward": pd.Categorical(rng.choice(["north", "south", "west"], N)),
            "ill": rng.integers(3, size=N),
            "name": [f"n{i}" for i in range(N)],
        }
    )


FRAME = frame()
EXPECTED = torch.stack(
    [
        torch.tensor(column, dtype=torch.float32)
        for column in (
            FRAME["age"],
            FRAME["height"],
            FRAME["smokes"],
            FRAME["ward"].cat.codes.astype(int),
        )
    ],
    1,
)
ILL = torch.tensor(FRAME["ill"])


def arrow_table() -> pa.Table:
    return pa.Table.from_pandas(FRAME)


def mapped_arrow(folder) -> pa.Table:
    pa.feather.write_feather(arrow_table(), folder / "t.arrow", compression="uncompressed")
    return pa.feather.read_table(folder / "t.arrow", memory_map=True)


def arrow_files(folder) -> pa.dataset.Dataset:
    plain = FRAME.assign(ward=FRAME["ward"].cat.codes.astype(int))
    table = pa.Table.from_pandas(plain)
    pa.dataset.write_dataset(
        table, folder / "files", format="parquet", max_rows_per_file=50, max_rows_per_group=50
    )
    return pa.dataset.dataset(folder / "files", format="parquet")


def hugging_face_set(folder=None) -> datasets.Dataset:
    plain = FRAME.assign(ward=FRAME["ward"].cat.codes.astype(int))
    return datasets.Dataset.from_pandas(plain)


TABLES = {
    "pandas": lambda folder: FRAME,
    "pandas, arrow types": lambda folder: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "pandas, nullable types": lambda folder: FRAME.convert_dtypes(),
    "pandas, another index": lambda folder: FRAME.set_index("name", drop=False),
    "arrow": lambda folder: arrow_table(),
    "arrow in chunks": lambda folder: pa.concat_tables(
        [arrow_table().slice(0, 7), arrow_table().slice(7, 1), arrow_table().slice(8)]
    ),
    "arrow, mapped": mapped_arrow,
    "arrow, files": arrow_files,
    "hugging face": hugging_face_set,
    "hugging face, torch": lambda folder: hugging_face_set().with_format("torch"),
    "hugging face, numpy": lambda folder: hugging_face_set().with_format("numpy"),
    "hugging face, turned twice": lambda folder: (
        hugging_face_set().select(range(N - 1, -1, -1)).select(range(N - 1, -1, -1))
    ),
}


def linear(inputs=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, 3))


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_read_as_its_columns_say(tmp_path, kind):
    table = TABLES[kind](tmp_path)
    data = data_on("cpu", Columns(table, inputs=INPUTS, targets="ill"), "data")
    assert len(data) == N
    assert (data.schema.inputs.shape, data.schema.inputs.dtype) == ((4,), torch.float32)
    rows = np.array([119, 3, 3, 0, 60])
    inputs, targets = data.take(rows)
    assert torch.allclose(inputs, EXPECTED[rows])
    assert torch.equal(targets, ILL[rows])
    batches = [targets for _, targets in data.batches(50)]
    assert torch.equal(torch.cat(batches), ILL)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_trains(tmp_path, kind):
    data = Columns(TABLES[kind](tmp_path), inputs=INPUTS, targets="ill")
    model = linear()
    before = weights(model).clone()
    trainer = make_trainer(
        data=data, model=model, epochs=1, test_tensors=data, validation=Validation(tensors=data)
    ).fit()
    assert trainer.done == trainer.sampling.steps
    assert not torch.equal(weights(model), before)


def test_a_pair_of_frames_trains_as_their_tensors_bit_for_bit():
    given = make_trainer(data=(FRAME[INPUTS], FRAME["ill"]), model=linear()).fit()
    usual = make_trainer(data=(EXPECTED, ILL), model=linear()).fit()
    assert torch.equal(weights(given.model), weights(usual.model))


@pytest.mark.parametrize(
    "part",
    [
        lambda: arrow_table().column("ill"),
        lambda: pa.array(FRAME["ill"]),
        lambda: hugging_face_set()["ill"],
        lambda: hugging_face_set().with_format("torch")["ill"],
        lambda: pd.Categorical(FRAME["ill"]),
        lambda: FRAME["ill"].astype("category"),
    ],
)
def test_one_column_is_a_part(part):
    targets = part()
    data = data_on("cpu", ({"x": EXPECTED}, targets), "data")
    assert torch.equal(data.take(np.array([5, 1]))[1], ILL[[5, 1]])


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, *, age, height):
        return self.layer(torch.stack([age / 50, height], 1))


@pytest.mark.parametrize("columns", [True, False])
def test_a_model_is_called_with_columns_by_name(columns):
    given = hugging_face_set().select_columns(["age", "height", "ill"])
    pair = given.select_columns(["age", "height"]), given["ill"]
    data = Columns(given, targets="ill") if columns else pair
    assert make_trainer(data=data, model=Named(), epochs=1).fit().done == 10
    renamed = Columns(FRAME, inputs={"age": "height", "height": "age"}, targets="ill")
    assert torch.equal(renamed.take(np.array([4]))[0]["age"], EXPECTED[[4], 1])


def test_several_targets_are_several():
    beside = Columns(FRAME, inputs="age", targets=["ill", "height"])
    assert beside.schema.targets.shape == (2,)
    named = Columns(FRAME, inputs=["age"], targets={"a": "ill", "b": "height"})
    assert set(named.take(np.array([0]))[1]) == {"a", "b"}
    assert "name" not in str(Columns(FRAME.drop(columns="name"), targets="ill").schema)


def nested_rows():
    return datasets.Dataset.from_dict(
        {"m": np.arange(24.0).reshape(6, 2, 2).tolist(), "y": [0, 1] * 3},
        features=datasets.Features(
            {"m": datasets.Array2D((2, 2), "float32"), "y": datasets.ClassLabel(names=["a", "b"])}
        ),
    )


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_arrays_within_a_table_keep_their_shape(form):
    data = Columns(nested_rows().with_format(form), inputs="m", targets="y")
    assert data.schema.inputs.shape == (2, 2)
    expected = torch.arange(24.0).reshape(6, 2, 2)
    assert torch.equal(data.take(np.array([5, 0]))[0], expected[[5, 0]])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(expected.numpy())
    table = pa.table({"m": tensors, "y": pa.array([0, 1] * 3)})
    assert torch.equal(
        Columns(table, inputs="m", targets="y").take(np.array([5, 0]))[0], expected[[5, 0]]
    )


def test_a_transform_gives_the_rows():
    def scaled(rows):
        return {"x": [torch.tensor([age / 50, 1.0]) for age in rows["age"]], "y": rows["ill"]}

    data = Columns(hugging_face_set().with_transform(scaled), inputs="x", targets="y")
    assert torch.allclose(data.take(np.array([7]))[0][0, 0], EXPECTED[7, 0] / 50)


def uneven(rows):
    size = [3 if name == "n100" else 2 for name in rows["name"]]
    return {"x": [torch.ones(each) for each in size], "y": rows["ill"]}


MISSING = FRAME.assign(age=FRAME["age"].astype("Int64").mask(FRAME.index == 7))
REFUSED = {
    "text": (lambda: (FRAME[["name"]], ILL), "column 'name' holds (object|str).*category"),
    "a missing whole number": (lambda: (MISSING[["age"]], ILL), "'age' has rows without.*fillna"),
    "a missing category": (
        lambda: (FRAME["ward"].mask(FRAME.index == 7), ILL),
        "'ward' has rows without a value",
    ),
    "times": (
        lambda: (pd.Series(pd.date_range("2020", periods=N), name="day"), ILL),
        "'day' holds datetime64.*days since",
    ),
    "lists": (lambda: (pd.Series([[1]] * N, name="w"), ILL), "'w' holds object.*Padded"),
    "another order": (lambda: (FRAME[INPUTS], FRAME["ill"][::-1]), "index of one table.*reset"),
    "no targets": (lambda: FRAME, "DataFrame: nobody says which .*Columns"),
    "arrow without targets": (arrow_table, "Table: nobody says which"),
    "hugging face without": (hugging_face_set, "Dataset: nobody says which"),
    "splits": (
        lambda: datasets.DatasetDict(train=hugging_face_set(), test=hugging_face_set()),
        "DatasetDict: has several splits; hand over one of train, test",
    ),
    "a stream": (
        lambda: hugging_face_set().to_iterable_dataset(),
        "is a stream, and Poisson sampling",
    ),
    "arrow text": (
        lambda: Columns(arrow_table(), inputs=["name"], targets="ill"),
        "column 'name' holds (large_)?string: must be numbers",
    ),
    "arrow null": (
        lambda: Columns(pa.table({"x": [1.0] * 19 + [None], "y": [0] * 20}), targets="y"),
        "column 'x': row 19 has no value",
    ),
    "hugging face text": (lambda: Columns(hugging_face_set(), targets="ill"), "column 'name' hol"),
    "a format's text": (
        lambda: Columns(hugging_face_set().with_format("torch"), targets="ill"),
        "column 'name': row 0 holds str",
    ),
    "rows of another shape": (
        lambda: Columns(hugging_face_set().with_transform(uneven), inputs="x", targets="y"),
        r"column 'x': row 100 is torch.float32 of shape \(3,\) where others",
    ),
    "an unknown column": (lambda: Columns(FRAME, targets="sick"), "targets = 'sick': no such.*age"),
    "nothing left": (lambda: Columns(FRAME[["ill"]], targets="ill"), "every column is a target"),
    "a list beside": (
        lambda: Columns(pa.table({"x": [[1]], "y": [0]}), inputs=["x"], targets="y"),
        "'x' is no column of single numbers",
    ),
    "no table": (lambda: Columns([1, 2], targets="y"), "table = list: must be a pandas"),
    "no rows": (lambda: Columns(FRAME[:0], targets="ill"), "table has 0 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused_before_a_charge(tmp_path, case):
    given, match = REFUSED[case]
    with pytest.raises(DataError, match=match) as refused:
        make_trainer(data=given(), run_dir=tmp_path / "run", model=linear())
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["pandas", "arrow, mapped", "hugging face"])
def test_a_run_resumes_on_its_table_and_refuses_one_that_changed_or_grew(tmp_path, kind):
    def run(table, folder="run"):
        data = Columns(table, inputs=INPUTS, targets="ill")
        return make_trainer(data=data, model=linear(), run_dir=tmp_path / folder)

    whole = run(TABLES[kind](tmp_path), "whole").fit()
    first = run(TABLES[kind](tmp_path))
    next(first.run())
    first.close()
    again = run(TABLES[kind](tmp_path)).resume().fit()
    assert torch.equal(weights(again.model), weights(whole.model))
    again.close()
    for changed in (FRAME.assign(age=FRAME["age"] + (FRAME.index == 60)), pd.concat([FRAME] * 2)):
        with pytest.raises(RunError, match=r"its (data|sampling) changed"):
            run(changed.reset_index(drop=True)).resume()


def test_a_set_too_large_to_pass_over_tells_its_own_fingerprint(monkeypatch):
    given = hugging_face_set()

    def told(table):
        return hashed(Columns(table, inputs=INPUTS, targets="ill").fingerprint())

    by_content = told(given)
    assert told(given.select(range(N))) == by_content
    monkeypatch.setattr(hugging_face, "WHOLE", 100)
    assert told(given) != by_content
    assert told(given) == told(hugging_face_set())
    assert told(given.select(range(1, N))) != told(given)
