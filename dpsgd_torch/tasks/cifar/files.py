"""CIFAR-10's binary batches: each record a label and 3,072 bytes, red, green, blue."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError

TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FOLDER = "cifar-10-batches-bin"
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_WHOLE = 10_000  # records a file


@dataclass(frozen=True)
class Images:
    """(n, 3, 32, 32) bytes, and the class of each."""

    pixels: NDArray[np.uint8]
    label: NDArray[np.int64]


def read_cifar(folder: Path) -> tuple[Images, Images]:
    """The images to train and to test on.

    Args:
        folder: holds data_batch_1.bin … data_batch_5.bin and test_batch.bin, or a folder
            cifar-10-batches-bin that does.

    Raises:
        DataError: a file that is missing, torn or holds no such label.
    """
    inner = folder / _FOLDER
    folder = inner if inner.is_dir() else folder
    parts = [_read(folder / name) for name in (*TRAIN, TEST)]
    train, test = parts[:-1], parts[-1]
    return (
        Images(
            np.concatenate([part.pixels for part in train]),
            np.concatenate([part.label for part in train]),
        ),
        test,
    )


def _read(path: Path) -> Images:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read; name the folder of CIFAR-10's binary version, which holds it"
        ) from error
    if not len(content) or len(content) % _RECORD:
        raise DataError(
            f"{path}: has {len(content)} bytes; must be whole records of {_RECORD}: fetch it again"
        )
    records = content.reshape(-1, _RECORD)
    label = records[:, 0].astype(np.int64)
    if (wrong := np.flatnonzero(label >= len(LABELS))).size:
        row = int(wrong[0])
        raise DataError(
            f"{path}, record {row}: has label {label[row]}; must be 0 … 9: CIFAR-100 and files "
            "for Python have another form"
        )
    if len(label) != _WHOLE:
        warnings.warn(f"{path}: holds {len(label)} records, not {_WHOLE}", stacklevel=3)
    return Images(records[:, 1:].reshape(-1, *_SHAPE), label)
