"""Numpy arrays of any kind and place: in memory, mapped from a file, sparse, or refused by name."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from small_problem import make_trainer, small_data, weights
from torch import nn

from dpsgd_torch import DataError, RunError
from dpsgd_torch.data import columns
from dpsgd_torch.data.arrays import OnDisk
from dpsgd_torch.data.checked import Checked, data_on
from dpsgd_torch.data.columns import Parts, blocks
from dpsgd_torch.data.in_memory import InMemory
from dpsgd_torch.training.fingerprint import hashed

X, Y = small_data()


def on_disk(folder, inputs=X, targets=Y, mode="r"):
    """The small problem's rows as two mapped files."""
    np.save(folder / "x.npy", np.asarray(inputs))
    np.save(folder / "y.npy", np.asarray(targets))
    return tuple(np.load(folder / f"{part}.npy", mmap_mode=mode) for part in "xy")


def read(given) -> torch.Tensor:
    """Inputs as they are taken."""
    return data_on("cpu", (given, np.zeros(len(given))), "data").take(np.array([2, 0]))[0]


@pytest.fixture(scope="module")
def usual():
    """The small problem from tensors in memory."""
    return make_trainer(data=(X, Y)).fit()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_mapped_files_train_as_tensors_in_memory_bit_for_bit(tmp_path, usual, mode):
    mapped = make_trainer(data=on_disk(tmp_path, mode=mode)).fit()
    assert isinstance(mapped.data, Checked)
    assert torch.equal(weights(mapped.model), weights(usual.model))
    assert mapped.history.to_json() == usual.history.to_json()


def test_views_of_a_mapped_file_stay_in_the_file(tmp_path, usual):
    x, y = on_disk(tmp_path, torch.cat([X, X]), torch.cat([Y, Y]))
    views = x[:120], np.asarray(y)[:120]
    assert isinstance(data_on("cpu", views, "data")._given, Parts)
    assert torch.equal(weights(make_trainer(data=views).fit().model), weights(usual.model))


def test_a_mapped_part_beside_tensors_will_do(tmp_path):
    x, _ = on_disk(tmp_path)
    inputs, targets = data_on("cpu", ({"a": x, "b": X}, Y), "data").take(np.array([3, 3]))
    assert torch.equal(inputs["a"], X[[3, 3]])
    assert torch.equal(inputs["a"], inputs["b"])
    assert torch.equal(targets, Y[[3, 3]])


LAYOUTS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "turned": lambda x: x[::-1].copy()[::-1],
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "columns first": np.asfortranarray,
    "read only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_weights(usual, layout):
    given = LAYOUTS[layout](X.numpy()), LAYOUTS[layout](Y.numpy())
    assert np.array_equal(given[0], X.numpy())
    assert torch.equal(weights(make_trainer(data=given).fit().model), weights(usual.model))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("uint8", torch.uint8),
        ("uint16", torch.int64),
        ("uint32", torch.int64),
        ("uint64", torch.int64),
        (">u2", torch.int64),
        ("bool", torch.bool),
        ("int8", torch.int8),
        ("float16", torch.float16),
        ("float64", torch.float64),
        ("complex64", torch.complex64),
    ],
)
def test_any_numbers_are_taken(tmp_path, kind, dtype, mapped):
    values = np.array([[0, 1], [1, 1], [1, 0]]).astype(kind)
    given = on_disk(tmp_path, values, np.zeros(3))[0] if mapped else values
    taken = read(given)
    assert taken.dtype is dtype
    assert taken.real.long().tolist() == [[1, 0], [0, 1]]


def test_large_unsigned_numbers_are_kept_or_refused():
    assert read(np.array([1, 65535, 40000], dtype=np.uint16)).tolist() == [40000, 1]
    assert read(torch.tensor([1, 65535, 40000], dtype=torch.uint16)).tolist() == [40000, 1]
    with pytest.raises(DataError, match="uint64 beyond 2⁶³"):
        read(np.array([1, 2**63, 0], dtype=np.uint64))


REFUSED = {
    "text": (np.array(["a", "b"]), "array of <U1.*number the words"),
    "objects": (np.array([[1], [2, 3]], dtype=object), "array of object.*Padded"),
    "times": (np.array(["2020-01-01"] * 2, dtype="M8[s]"), r"datetime64\[s\].*make numbers"),
    "records": (np.zeros(2, dtype=[("a", int)]), "dict of arrays"),
    "wide": (np.zeros(2, np.longdouble), "longdouble|float128"),
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), "masked array.*filled"),
    "one number": (np.array(1.0), "one number"),
    "nested": (
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "nested tensor.*Padded",
    ),
    "blocks": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), "sparse_bsr.*to_sparse_csr"),
    "sparse images": (torch.ones(2, 3, 4).to_sparse(), r"sparse of shape \(2, 3, 4\)"),
}


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_rows_of_numbers_is_refused_by_its_place(case):
    given, match = REFUSED[case]
    given = given() if callable(given) else given
    with pytest.raises(DataError, match=rf"^train_tensors: inputs.*({match})") as refused:
        make_trainer(data=(given, Y[:2]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("container", [tuple, list])
def test_three_tensors_are_refused_with_the_pair_that_is_meant(container):
    with pytest.raises(DataError, match=r"of 3: must be two, .* as in \(\(x1, x2\), y\)"):
        make_trainer(data=container([X, X, Y]))
    with pytest.raises(DataError, match=r"which part is predicted is not told; .*targets=2"):
        make_trainer(data=torch.utils.data.TensorDataset(X, X, Y))


def test_a_mapped_part_of_another_length_is_refused(tmp_path):
    x, _ = on_disk(tmp_path)
    with pytest.raises(DataError, match="targets has 119 rows where inputs has 120"):
        make_trainer(data=(x, Y[1:]))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "torch csr", "torch coo"])
def test_sparse_rows_train_as_dense_ones_but_for_the_digest(form):
    dense = torch.rand(40, 6).where(torch.rand(40, 6) < 0.3, 0.0)
    if form.startswith("torch"):
        sparse = dense.to_sparse() if form.endswith("coo") else dense.to_sparse_csr()
    else:
        sparse = scipy.sparse.coo_matrix(dense.numpy()).asformat(form)
    data = data_on("cpu", (sparse, torch.zeros(40)), "data")
    rows = np.array([5, 39, 0, 5])
    assert torch.equal(data.take(rows)[0], dense[rows])
    assert hashed(data.fingerprint()) != hashed(
        data_on("cpu", (sparse * 2, torch.zeros(40)), "data").fingerprint()
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
    trainer = make_trainer(data=(sparse, torch.arange(40) % 3), model=model)
    assert trainer.fit().done == trainer.sampling.steps


def test_the_digest_of_a_mapped_file_is_that_of_its_values(tmp_path):
    whole = InMemory(X, Y).fingerprint()
    assert hashed(data_on("cpu", on_disk(tmp_path), "data").fingerprint()) == hashed(whole)
    named = InMemory({"b": X, "a": Y}, Y)
    x, y = on_disk(tmp_path)
    mapped = data_on("cpu", ({"b": x, "a": y}, y), "data")
    assert hashed(mapped.fingerprint()) == hashed(named.fingerprint())


def test_a_run_resumes_on_its_file_and_refuses_one_that_changed_or_grew(tmp_path):
    first = make_trainer(data=on_disk(tmp_path), run_dir=tmp_path / "run")
    next(first.run())
    first.close()
    for x, y in [(torch.cat([X, X[:1]]), torch.cat([Y, Y[:1]])), (X + (torch.arange(6) == 5), Y)]:
        with pytest.raises(RunError, match=r"its (data|sampling) changed"):
            make_trainer(data=on_disk(tmp_path, x, y), run_dir=tmp_path / "run").resume()
    again = make_trainer(data=on_disk(tmp_path), run_dir=tmp_path / "run").resume().fit()
    assert again.done == again.sampling.steps


def test_a_large_part_is_known_by_rows_that_are_spread_over_it(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "WHOLE", 1 << 16)
    values = np.zeros((20_000, 8), np.float32)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")

    def told():
        return hashed(data_on("cpu", (mapped, np.zeros(20_000)), "data").fingerprint())

    before, spread = told(), np.concatenate([*blocks(20_000, 32)])
    assert 1000 < len(spread) <= 2048
    assert {0, 19_999} <= set(spread.tolist())
    mapped[19_999] = 1.0
    assert told() != before
    mapped[19_999] = 0.0
    between = np.setdiff1d(np.arange(20_000), spread)[0]
    mapped[between] = 1.0
    assert told() == before  # what the docstring says that it would not notice


def test_hundreds_of_megabytes_pass_through_little_memory(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (4000, 100_000))
    y = torch.arange(4000) % 3
    tracemalloc.start()
    data = data_on("cpu", (x, y), "data")
    for batch in data.batches():
        assert len(batch[0]) < 1000
    assert hashed(data.fingerprint())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160e6 < x.nbytes  # of 400 MB


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of memory")
def test_the_process_does_not_grow_by_the_file(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (6000, 100_000)).flush()
    code = (
        "import resource, sys, numpy as np, torch\n"
        "from dpsgd_torch.data.checked import data_on\n"
        "from dpsgd_torch.training.fingerprint import hashed\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "x = np.load(sys.argv[1], mmap_mode='r')\n"
        "data = data_on('cpu', (x, torch.zeros(6000)), 'data')\n"
        "before = peak()\n"
        "hashed(data.fingerprint())\n"
        "for step in range(60):\n"
        "    data.take(np.random.default_rng(step).integers(0, 6000, 100))\n"
        "print(peak() - before)\n"
    )
    grown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.npy")],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(grown.stdout) < 200_000  # kilobytes, of 600 MB


def test_a_column_says_what_it_is(tmp_path):
    x, _ = on_disk(tmp_path)
    column = data_on("cpu", (x, Y), "data")._given._batch[0]
    assert isinstance(column, OnDisk)
    assert (len(column), column.spec.shape, column.row_bytes()) == (120, (1, 6, 6), 144)
