"""IDX files as MNIST ships them: what they must look like, checked before anything reads them."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path

from dpsgd_torch.errors import DataError

FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
"""Name → shape, for MNIST and for the data sets made to replace it."""

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def check_idx(path: Path, shape: tuple[int, ...], sha256: str | None) -> None:
    """Refuse an IDX file of unsigned bytes with another magic, shape, length or sum.

    Raises:
        DataError: naming the file, what it holds and what it must hold.
    """
    move = "delete it and start again to fetch it anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    magic = bytes([0, 0, 8, len(shape)])
    if content[:4] != magic:
        raise DataError(f"{path}: magic {content[:4].hex()} must be {magic.hex()}; {move}")
    header = 4 + 4 * len(shape)
    stated = struct.unpack(f">{len(shape)}I", content[4:header].ljust(4 * len(shape), b"\0"))
    if stated != shape:
        raise DataError(f"{path}: header says shape {stated}, must be {shape}; {move}")
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{path}: truncated or overlong, {len(content)} bytes must be {expected}; {move}"
        )
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path}: sha256 must be {sha256}; {move}")
