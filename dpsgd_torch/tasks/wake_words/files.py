"""Visual wake words from a folder: images with a person in one folder, without in another."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, told
from dpsgd_torch.tasks.wake_words.model import SIDE

LABELS = ("no person", "person")
_FOLDERS = (("not_person", "non_person"), ("person",))
_KINDS = (".jpg", ".jpeg", ".png", ".bmp")
_TESTED = 5  # one in so many


def read_folder(
    folder: Path, one_in: int
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.int64]], ...]:
    """(n, 3, 96, 96) bytes and labels, to train and to test on.

    Whether an image is read, and for what, its name alone decides, so that whether one is there
    changes nothing about another.

    Args:
        folder: holds person and not_person (or non_person).
        one_in: of the images, so many is one that is read.

    Raises:
        DataError: a folder that is missing or empty, or a file that is no image.
    """
    parts: list[list[tuple[Path, int]]] = [[], []]
    for label, names in enumerate(_FOLDERS):
        found = next((folder / name for name in names if (folder / name).is_dir()), None)
        if found is None:
            raise DataError(
                f"data_dir = {folder}: has no folder {names[0]}; needs two, person and not_person"
            )
        images = sorted(path for path in found.iterdir() if path.suffix.lower() in _KINDS)
        if not images:
            raise DataError(f"{found}: has no image ({', '.join(_KINDS)}); put some there")
        for path in images:
            drawn = zlib.crc32(path.name.encode("utf-8", "surrogateescape"))
            if drawn // _TESTED % one_in == 0:
                parts[drawn % _TESTED == 0].append((path, label))
    for part, what in zip(parts, ("train", "test"), strict=True):
        if not part:
            raise DataError(f"data_dir = {folder}: has no image to {what} on; lower --one-in")
    return tuple(_read(part) for part in parts)


def _read(images: list[tuple[Path, int]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels = np.stack([read_image(path) for path, _ in images])
    return pixels, np.array([label for _, label in images], np.int64)


def read_image(path: Path) -> NDArray[np.uint8]:
    """(3, 96, 96): the middle square of an image, scaled.

    Raises:
        DataError: a file that is no whole image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({told(error)}); take it away, or fetch it again"
        ) from error
    return np.ascontiguousarray(np.asarray(fitted, np.uint8).transpose(2, 0, 1))
