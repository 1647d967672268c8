"""WAV files of 16-bit mono sound at 16 kHz, each refused by its name where it is another."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, told

RATE = 16_000  # samples a second


def read_wav(path: Path) -> NDArray[np.float32]:
    """(samples,) in [−1, 1).

    Raises:
        DataError: no WAV file, another rate, width or number of channels, or one cut short.
    """
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            promised = file.getnframes()
            content = file.readframes(promised)
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as WAV ({told(error)}); fetch it again, or take it away"
        ) from error
    if kind != (1, 2, RATE):
        channels, width, rate = kind
        raise DataError(
            f"{path}: has {channels} channels of {8 * width} bits at {rate} Hz; needs one of 16 "
            f"bits at {RATE} Hz: convert it"
        )
    if not promised or len(content) != 2 * promised:
        raise DataError(
            f"{path}: holds {len(content) // 2} of {promised} samples; fetch it again, or take it "
            "away"
        )
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)


def to_int16(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    """Sound in [−1, 1] as the integers of a file or a microphone; what was read comes back.

    >>> to_int16(np.array([-1, 0.5, 1], np.float32)).tolist()
    [-32768, 16384, 32767]
    """
    return np.rint(sound * 32768).clip(-32768, 32767).astype(np.int16)


def wavs_in(folder: Path) -> list[Path]:
    """The WAV files right in a folder, by name.

    Raises:
        DataError: there is none.
    """
    files = folder.iterdir() if folder.is_dir() else []
    found = sorted(path for path in files if path.suffix.lower() == ".wav")
    if not found:
        raise DataError(f"data_dir: {folder} has no WAV file; name the folder above it")
    return found
