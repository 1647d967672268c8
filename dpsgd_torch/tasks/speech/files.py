"""Speech Commands from its folder: a folder a word, lists of what is not trained on, noise."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import DataError, shown
from dpsgd_torch.tasks.speech.synthetic import LABELS, WORDS
from dpsgd_torch.tasks.wav import RATE, read_wav, wavs_in

NOISE = "_background_noise_"
LISTS = ("validation_list.txt", "testing_list.txt")
_SILENCE, _UNKNOWN = LABELS.index("silence"), LABELS.index("unknown")
_HOP = RATE // 2  # from one second of noise to the next
_TESTED = 5  # the last fifth of each noise is tested on
_NAMED = "_nohash_"


@dataclass(frozen=True)
class Clip:
    """A second of sound: where it stands, its label, and who speaks."""

    path: Path
    begin: int | None
    """The first sample of noise, None for a recording, which is one second at most."""
    label: int
    speaker: str


def read_commands(folder: Path, unknown_one_in: int) -> tuple[list[Clip], list[Clip]]:
    """Clips to train and to test on; those of validation_list.txt are in neither.

    Args:
        unknown_one_in: of recordings of other words one in so many is taken, by its name alone,
            so that whether one is there changes nothing about another.

    Raises:
        DataError: a word, list or noise that is missing, or a name that does not fit.
    """
    held, tested = (_listed(folder, name) for name in LISTS)
    if missing := [word for word in WORDS if not (folder / word).is_dir()]:
        raise DataError(
            f"data_dir = {folder}: has no folder {missing[0]}; name the folder of Speech Commands "
            f"that holds {', '.join(WORDS)}"
        )
    train: list[Clip] = []
    test: list[Clip] = []
    for words in sorted(path for path in folder.iterdir() if path.is_dir()):
        if words.name == NOISE:
            continue
        for path in wavs_in(words):
            name = f"{words.name}/{path.name}"
            known = words.name in WORDS
            if not known and zlib.crc32(name.encode()) % unknown_one_in:
                continue
            speaker, separator, _ = path.name.partition(_NAMED)
            if not separator or not speaker:
                raise DataError(f"{path}: its name does not say the speaker, as ID{_NAMED}0.wav")
            clip = Clip(path, None, LABELS.index(words.name) if known else _UNKNOWN, speaker)
            if name not in held:
                (test if name in tested else train).append(clip)
    for clips, part in zip((train, test), _silence(folder / NOISE), strict=True):
        clips.extend(part)
    for clips, what in ((train, "train"), (test, "test")):
        if not clips:
            raise DataError(f"data_dir = {folder}: has no recording to {what} on; fetch it again")
    return train, test


def read_clip(clip: Clip) -> NDArray[np.float32]:
    """(16000,): shorter recordings are followed by silence.

    Raises:
        DataError: a file that is no such sound, or a recording that is longer.
    """
    sound = read_wav(clip.path)
    if clip.begin is not None:
        return sound[clip.begin : clip.begin + RATE]
    if len(sound) > RATE:
        raise DataError(
            f"{clip.path}: has {len(sound)} samples; must be one second, {RATE}, at most: cut it"
        )
    return np.pad(sound, (0, RATE - len(sound)))


def _listed(folder: Path, name: str) -> set[str]:
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read; name the folder of Speech Commands, which holds it"
        ) from error
    for number, line in enumerate(lines, start=1):
        if line and not (folder / line).is_file():
            raise DataError(f"{path}, line {number}: {shown(line)} is not there; fetch it again")
    return set(filter(None, lines))


def _silence(folder: Path) -> Iterator[list[Clip]]:
    """Seconds of noise to train and to test on; none lies in both."""
    train: list[Clip] = []
    test: list[Clip] = []
    for path in wavs_in(folder):
        count = len(read_wav(path))
        if count < RATE:
            warnings.warn(f"{path}: is shorter than a second and left out", stacklevel=4)
        last = count - count // _TESTED
        for begin in range(0, count - RATE + 1, _HOP):
            clip = Clip(path, begin, _SILENCE, f"{path.name} from {begin}")
            if begin + RATE <= last:
                train.append(clip)
            elif begin >= last:
                test.append(clip)
    yield from (train, test)
