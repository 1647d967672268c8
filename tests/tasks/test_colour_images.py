"""CIFAR-10's binary files and folders of images: read, or refused by the name of the bad file."""

import zlib

import numpy as np
import pytest
from PIL import Image

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.cifar.files import TEST, TRAIN, read_cifar
from dpsgd_torch.tasks.cifar.task import cifar_task
from dpsgd_torch.tasks.wake_words.files import read_folder, read_image
from dpsgd_torch.tasks.wake_words.knobs import WakeWordsKnobs
from dpsgd_torch.tasks.wake_words.task import wake_words_task

RECORD = 3073
few = pytest.mark.filterwarnings("ignore:.*records, not 10000")


def batch(count, seed):
    records = np.random.default_rng(seed).integers(0, 256, (count, RECORD), np.uint8)
    records[:, 0] = np.arange(count) % 10
    return records


@pytest.fixture
def cifar(tmp_path):
    for seed, name in enumerate((*TRAIN, TEST)):
        batch(12, seed).tofile(tmp_path / name)
    return tmp_path


@few
def test_a_record_is_a_label_and_three_planes(cifar):
    train, test = read_cifar(cifar)
    assert train.pixels.shape == (60, 3, 32, 32)
    record = batch(12, 1)[3]  # of the second file
    assert train.label[15] == record[0]
    assert train.pixels[15, 2, 31, 30] == record[1 + 2 * 1024 + 31 * 32 + 30]
    assert np.array_equal(test.pixels.reshape(12, -1), batch(12, 5)[:, 1:])


@few
def test_the_folder_of_the_archive_may_be_named_too(cifar, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    cifar_files = [cifar / name for name in (*TRAIN, TEST)]
    (outer / "cifar-10-batches-bin").mkdir()
    for path in cifar_files:
        path.rename(outer / "cifar-10-batches-bin" / path.name)
    task = cifar_task("none", outer)
    assert task.train[0].shape == (60, 3, 32, 32)
    assert (task.train[0].min(), task.train[0].max()) == (0, 1)
    assert task.labels[3] == "cat"
    assert not task.synthetic


@few
def test_files_that_hold_fewer_records_than_the_set_are_told(cifar):
    with pytest.warns(UserWarning, match=r"data_batch_1\.bin: holds 12 records, not 10000"):
        read_cifar(cifar)


@few
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot be read; name the folder"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 36875 bytes; must be whole"),
        (lambda path: path.write_bytes(b""), "has 0 bytes; must be whole"),
        (lambda path: path.write_bytes(b"\x0b" * RECORD), "record 0: has label 11; must be 0 … 9"),
    ],
)
def test_a_bad_file_is_refused_by_name(spoil, words, cifar):
    spoil(cifar / "data_batch_4.bin")
    with pytest.raises(DataError, match=words) as refused:
        read_cifar(cifar)
    assert "data_batch_4.bin" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture
def photographs(tmp_path):
    """Twenty images of each kind, of several sizes and formats."""
    rng = np.random.default_rng(0)
    for kind in ("person", "not_person"):
        (tmp_path / kind).mkdir()
        for number in range(20):
            size = (120, 96) if number % 2 else (64, 100)
            shape = (*size, 3) if number % 3 else size
            image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
            image.save(tmp_path / kind / f"{number:04}.{'png' if number % 2 else 'jpg'}")
    (tmp_path / "person" / "labels.txt").write_text("no image")
    return tmp_path


def test_a_folder_of_images_is_a_task(photographs):
    task = wake_words_task(WakeWordsKnobs(norm="none"), photographs)
    assert task.train[0].shape[1:] == (3, 96, 96)
    assert len(task.train[1]) + len(task.test[1]) == 40
    assert 0 <= task.train[0].min() < task.train[0].max() <= 1
    assert task.train[1].unique().tolist() == [0, 1]
    assert task.labels == ("no person", "person")
    assert "one image" in task.note


def test_the_middle_square_is_taken(tmp_path):
    pixels = np.zeros((96, 192, 3), np.uint8)
    pixels[:, 48:144, 1] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.shape == (3, 96, 96)
    assert (found[1] == 200).all()
    assert not found[0].any()


def test_who_is_read_and_tested_on_hangs_on_its_name_alone(photographs):
    def names(one_in):
        return [len(labels) for _, labels in read_folder(photographs, one_in)]

    crcs = [zlib.crc32(p.name.encode()) for k in ("person", "not_person")
            for p in (photographs / k).iterdir() if p.suffix != ".txt"]  # fmt: skip
    tested = sum(crc % 5 == 0 for crc in crcs)
    assert names(1) == [40 - tested, tested]
    assert sum(names(2)) == sum(crc // 5 % 2 == 0 for crc in crcs)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image_is_refused_by_name(content, photographs):
    (photographs / "person" / "0007.png").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an image") as refused:
        read_folder(photographs, 1)
    assert "person/0007.png" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_image_cut_short_is_refused_by_name(photographs):
    path = photographs / "person" / "0007.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"person/0007\.png: cannot be read as an image"):
        read_folder(photographs, 1)


def test_folders_that_are_missing_or_empty_are_refused_by_name(photographs):
    for path in (photographs / "not_person").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="not_person: has no image"):
        read_folder(photographs, 1)
    (photographs / "not_person").rename(photographs / "non_person")
    with pytest.raises(DataError, match="non_person: has no image"):
        read_folder(photographs, 1)
    (photographs / "non_person").rmdir()
    with pytest.raises(DataError, match="has no folder not_person"):
        read_folder(photographs, 1)
