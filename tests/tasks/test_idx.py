"""An IDX file is read only when magic, shape, length and sum are all what they must be."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.mnist.idx import FILES, MNIST_SHA256, check_idx

SHAPE = (3, 2, 2)
CONTENT = bytes([0, 0, 8, 3]) + struct.pack(">3I", *SHAPE) + bytes(range(12))
SHA256 = hashlib.sha256(CONTENT).hexdigest()

DAMAGED = {
    "empty": b"",
    "only a magic number": CONTENT[:4],
    "cut in the header": CONTENT[:9],
    "truncated by one byte": CONTENT[:-1],
    "one byte too long": CONTENT + b"\0",
    "floats, not bytes": bytes([0, 0, 13, 3]) + CONTENT[4:],
    "labels, not images": bytes([0, 0, 8, 1]) + struct.pack(">I", 12) + bytes(12),
    "still compressed": bytes([0x1F, 0x8B, 8, 0]) + CONTENT[4:],
    "same length, other shape": CONTENT[:4] + struct.pack(">3I", 2, 3, 2) + CONTENT[16:],
    "little-endian header": CONTENT[:4] + struct.pack("<3I", *SHAPE) + CONTENT[16:],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "images-idx3-ubyte"


@pytest.mark.parametrize("sha256", [None, SHA256], ids=["without a sum", "with its sum"])
def test_the_right_file_is_accepted(file, sha256):
    file.write_bytes(CONTENT)
    check_idx(file, SHAPE, sha256)  # raises where anything is wrong
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name_even_without_a_sum(file, content):
    file.write_bytes(content)
    with pytest.raises(DataError) as refusal:
        check_idx(file, SHAPE, None)
    assert str(file) in str(refusal.value)
    assert file.read_bytes() == content


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="missing-idx1-ubyte"):
        check_idx(tmp_path / "missing-idx1-ubyte", (3,), None)


def test_a_folder_in_place_of_the_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError) as refusal:
        check_idx(tmp_path, SHAPE, None)
    assert str(tmp_path) in str(refusal.value)


def test_another_sum_is_refused_with_the_sum_that_was_expected(file):
    file.write_bytes(CONTENT)
    expected = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(DataError, match=expected) as refusal:
        check_idx(file, SHAPE, expected)
    assert str(file) in str(refusal.value)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_any_single_changed_byte_is_refused(file, position, difference):
    changed = bytearray(CONTENT)
    changed[position] ^= difference
    file.write_bytes(changed)
    with pytest.raises(DataError):
        check_idx(file, SHAPE, SHA256)


def test_every_mnist_file_has_a_recorded_sum():
    assert set(MNIST_SHA256) == set(FILES)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in MNIST_SHA256.values())
    assert len(set(MNIST_SHA256.values())) == 4
