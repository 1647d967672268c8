"""Made-up spoken words: a voice's harmonics under moving formants, and noise for consonants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.tasks.wav import RATE

Floats = NDArray[np.float32]

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
LABELS = (*WORDS, "silence", "unknown")
_RATE = RATE // 2  # what is kept ends at 4 kHz
_HARMONICS = 30
_WORDS_A_SPEAKER = 10


class _Sound(NamedTuple):
    """Formants in Hz [Peterson, Barney 1952, Table II], loudness of voice and of noise, length."""

    formants: tuple[int, int, int]
    voice: float
    noise: float
    centre: float
    seconds: float


_SOUNDS = {
    "i": _Sound((270, 2290, 3010), 1.0, 0, 0, 0.16),
    "e": _Sound((530, 1840, 2480), 1.0, 0, 0, 0.16),
    "a": _Sound((730, 1090, 2440), 1.0, 0, 0, 0.17),
    "o": _Sound((570, 840, 2410), 1.0, 0, 0, 0.17),
    "u": _Sound((300, 870, 2240), 1.0, 0, 0, 0.13),
    "v": _Sound((640, 1190, 2390), 1.0, 0, 0, 0.15),
    "n": _Sound((250, 1500, 2500), 0.4, 0, 0, 0.10),
    "m": _Sound((250, 1000, 2200), 0.4, 0, 0, 0.10),
    "l": _Sound((360, 1000, 2800), 0.6, 0, 0, 0.08),
    "r": _Sound((350, 1200, 1600), 0.6, 0, 0, 0.08),
    "y": _Sound((270, 2200, 3000), 0.6, 0, 0, 0.07),
    "s": _Sound((300, 1700, 2600), 0, 0.5, 3600, 0.16),
    "f": _Sound((300, 1000, 2300), 0, 0.2, 2600, 0.13),
    "t": _Sound((300, 1700, 2600), 0, 0.6, 3000, 0.05),
    "p": _Sound((300, 900, 2300), 0, 0.4, 900, 0.05),
    "k": _Sound((300, 1600, 2300), 0, 0.5, 1900, 0.05),
    "d": _Sound((300, 1700, 2600), 0.2, 0.3, 2700, 0.05),
    "g": _Sound((300, 1600, 2300), 0.2, 0.3, 1700, 0.05),
    "-": _Sound((300, 1500, 2500), 0, 0, 0, 0.05),
}
_SPELLED = dict(
    zip(
        WORDS,
        ("daun", "gou", "lef-t", "nou", "of", "an", "rai-t", "s-tap", "v-p", "yes"),
        strict=True,
    )
)
_OTHERS = ("pa-k", "mi", "ki-p", "sem", "tri", "lvk", "raun", "fa", "ni-t", "sul",
           "ko-t", "yum")  # fmt: skip


@dataclass(frozen=True)
class Spoken:
    """(n, 16000) sounds in [−1, 1], the label of each, and who said it."""

    sound: Floats
    label: NDArray[np.int64]
    speaker: NDArray[np.int64]


def synthetic_speech(count: int, seed: int) -> Spoken:
    """``count`` recordings of a second, about as many of each of the 12 labels; same for one seed.

    Each speaker has a pitch, a length of vocal tract and a pace, and says ten words; each word is a
    sequence of sounds whose formants glide from one to the next, somewhere in a second of noise.

    >>> made = synthetic_speech(3, 0)
    >>> made.sound.shape, made.label.shape
    ((3, 16000), (3,))
    """
    rng = np.random.default_rng(seed)
    speakers = max(1, count // _WORDS_A_SPEAKER)
    pitch, tract, pace = (
        rng.uniform(low, high, speakers) for low, high in ((90, 240), (0.87, 1.18), (0.8, 1.2))
    )
    speaker = rng.integers(speakers, size=count)
    label = rng.permutation(np.arange(count) % len(LABELS))
    sound = np.empty((count, RATE), np.float32)
    for i, (which, who) in enumerate(zip(label, speaker, strict=True)):
        name = LABELS[which]
        spelled = {"silence": "", "unknown": str(rng.choice(_OTHERS))}.get(name)
        spelled = _SPELLED[name] if spelled is None else spelled
        word = _said(rng, spelled, float(pitch[who]), float(tract[who]), float(pace[who]))
        sound[i] = np.repeat(word, 2) if len(word) else 0
        sound[i] += rng.normal(0, 10 ** rng.uniform(-3.2, -1.7), RATE)
    return Spoken(np.clip(sound, -1, 1), label.astype(np.int64), speaker)


def _said(
    rng: np.random.Generator, spelled: str, pitch: float, tract: float, pace: float
) -> Floats:
    """(8000,) at 8 kHz, by additive synthesis: harmonics weighted by three resonances."""
    found = np.zeros(_RATE, np.float32)
    if not spelled:
        return found
    sounds = [_SOUNDS[each] for each in spelled]
    lengths = np.array([s.seconds for s in sounds]) * pace * rng.uniform(0.85, 1.15, len(sounds))
    lengths *= min(1.0, 0.9 / lengths.sum())
    ends = np.cumsum(lengths)
    t = np.arange(int(ends[-1] * _RATE)) / _RATE
    middles = ends - lengths / 2

    def track(values: list[float]) -> NDArray[np.float64]:
        return np.asarray(np.interp(t, middles, values))

    glide = pitch * (1 + 0.15 * rng.normal() * (t / ends[-1] - 0.5) + 0.01 * rng.normal())
    turns = np.cumsum(glide) / _RATE
    number = np.arange(1, _HARMONICS + 1, dtype=np.float32)[:, None]
    at = number * glide.astype(np.float32)
    weight = np.zeros_like(at)
    for k, width in enumerate((90.0, 110.0, 170.0)):
        centre = track([tract * s.formants[k] * rng.normal(1, 0.03) for s in sounds])
        weight += (1.0, 0.6, 0.3)[k] / (1 + ((at - centre.astype(np.float32)) / width) ** 2)
    weight *= at < _RATE / 2
    voiced = (weight * np.sin(2 * np.pi * (number * (turns % 1).astype(np.float32)))).sum(0)
    voiced *= track([s.voice for s in sounds])
    hiss = np.zeros(len(t))
    for s, end, length in zip(sounds, ends, lengths, strict=True):
        if s.noise:
            hiss += s.noise * _band(rng, len(t), s.centre * tract) * _window(t, end - length, end)
    word = 0.3 * voiced + 0.5 * hiss
    word *= rng.uniform(0.3, 0.9) / max(1e-3, float(np.abs(word).max()))
    begin = int(rng.uniform(0.3, 0.7) * (_RATE - len(t)))
    found[begin : begin + len(t)] = word
    return found


def _band(rng: np.random.Generator, count: int, centre: float) -> NDArray[np.float64]:
    """Noise around a frequency, of deviation 1."""
    at = np.fft.rfftfreq(count, 1 / _RATE)
    spectrum = np.fft.rfft(rng.normal(size=count)) / (1 + ((at - centre) / 700) ** 2)
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / max(1e-9, float(noise.std())))


def _window(t: NDArray[np.float64], begin: float, end: float) -> NDArray[np.float64]:
    edge = 0.008  # s
    return np.asarray(np.clip((t - begin) / edge, 0, 1) * np.clip((end - t) / edge, 0, 1))
