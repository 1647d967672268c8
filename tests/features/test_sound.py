"""Features of sound in integers, against scipy's transforms in float64."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import scipy.fft
import scipy.signal
from sounds import hostile, sounds

from dpsgd_torch.features.sound import (
    KEYWORDS,
    MACHINES,
    Frontend,
    features,
    integers,
    model_inputs,
)
from dpsgd_torch.features.sound.tables import tables

FINE = {
    "mfcc": dataclasses.replace(KEYWORDS, bits=16, steps=256, finer=1, floor=-45),
    "log-mel": dataclasses.replace(MACHINES, bits=16, steps=256, finer=1, floor=-45),
    "hamming": Frontend(
        frame=480, fft=512, window="hamming", bits=16, steps=256, finer=1, floor=-45
    ),
    "short": Frontend(frame=200, hop=80, fft=256, bands=20, bits=16, steps=256, finer=1, floor=-45),
}


def oracle(waveform, frontend):
    """In the words of ``Frontend``'s docstring; the arithmetic is scipy's and numpy's."""
    window = scipy.signal.get_window(frontend.window, frontend.frame)  # periodic
    starts = range(0, len(waveform) - frontend.frame + 1, frontend.hop)
    frames = np.stack([waveform[start : start + frontend.frame] / 32768 for start in starts])
    power = np.abs(scipy.fft.rfft(frames * window, frontend.fft) / frontend.fft) ** 2
    mel = 1127 * np.log1p(scipy.fft.rfftfreq(frontend.fft, 1 / frontend.rate) / 700)
    ends = 1127 * np.log1p(np.array([frontend.low, frontend.high]) / 700)
    points = np.linspace(*ends, frontend.bands + 2)
    bands = [np.interp(mel, points[i : i + 3], [0, 1, 0]) for i in range(frontend.bands)]
    logs = np.log(
        power @ np.stack(bands, axis=1) + 2.0**frontend.floor
    ) - frontend.reference * math.log(2)
    if frontend.coefficients is None:
        return logs
    return scipy.fft.dct(logs, norm="ortho")[:, : frontend.coefficients]


def errors(waveform, frontend):
    """Of what does not saturate."""
    half = 2 ** (frontend.bits - 1)
    ends = -half * frontend.scales, (half - 1) * frontend.scales
    true = np.clip(oracle(waveform, frontend), *ends)
    return np.abs(features(waveform, frontend) * frontend.scales - true)


def heard(waveform, frontend):
    """Which log-mel energies lie within 80 dB of their frame's loudest."""
    true = oracle(waveform, frontend)
    return true > true.max(axis=1, keepdims=True) - 80 / 10 * math.log(10)


@pytest.mark.parametrize("name", FINE)
def test_what_an_ear_hears_is_within_hundredths_of_a_neper_of_float64(name):
    worst, mean = 0.0, []
    for waveform in sounds().values():
        error = errors(waveform, FINE[name])
        mean.append(error.mean())
        if FINE[name].coefficients is None:
            error = error[heard(waveform, FINE[name])]
        worst = max(worst, error.max())
    assert worst < 0.05
    assert np.mean(mean) < 0.003


@pytest.mark.parametrize("frontend", [KEYWORDS, MACHINES], ids=["keywords", "machines"])
def test_int8_adds_half_a_step(frontend):
    for waveform in sounds().values():
        error = errors(waveform, frontend)
        assert (error.max(axis=0) < 0.5 * frontend.scales + 0.1).all()
        assert error.mean() < 0.28 * frontend.scales.mean()


def test_a_pure_tone_is_wrong_only_where_it_is_80_db_down():
    """The window's 16 bits show where one sound is loud and all else is silent."""
    for waveform in hostile().values():
        error = errors(waveform, FINE["log-mel"])
        assert error[heard(waveform, FINE["log-mel"])].max() < 0.02


def test_no_waveform_makes_a_log_energy_or_the_first_coefficient_saturate():
    everything = [*sounds().values(), *hostile().values()]
    machines = np.stack([features(waveform, MACHINES) for waveform in everything])
    first = np.stack([features(waveform, KEYWORDS) for waveform in everything])[..., 0]
    for found in (machines, first):
        assert found.min() > -128
        assert found.max() < 127


def test_what_saturates_is_clamped():
    loud = dataclasses.replace(KEYWORDS, finer=64)
    fine = dataclasses.replace(loud, bits=16)
    for waveform in hostile().values():
        expected = np.clip(features(waveform, fine), -128, 127)
        assert (features(waveform, loud) == expected).all()


def test_a_network_takes_them_between_minus_one_and_one():
    waveform = sounds()["vowel"]
    inputs = model_inputs(waveform)
    assert inputs.dtype == np.float32
    assert (inputs * 128 == features(waveform)).all()
    assert KEYWORDS.input_range == (-1.0, 127 / 128)


def test_shapes_are_those_the_networks_take():
    waveforms = np.stack(list(sounds().values()))
    assert features(waveforms).shape == (5, 49, 10)
    assert features(waveforms).dtype == np.int8
    assert features(waveforms[0, : MACHINES.samples(5)], MACHINES).size == 640
    assert (features(waveforms)[3] == features(waveforms[3])).all()
    many = np.tile(waveforms, (5, 1))
    assert (features(many)[20:] == features(waveforms)).all()
    assert (features(many.reshape(5, 5, -1))[4] == features(waveforms)).all()
    assert features(many[:0]).shape == (0, 49, 10)


def test_a_frame_does_not_depend_on_those_around_it():
    waveform = sounds()["vowel"]
    part = waveform[KEYWORDS.hop * 7 : KEYWORDS.hop * 7 + KEYWORDS.samples(20)]
    assert (features(waveform)[7:27] == features(part)).all()


def test_the_tables_are_the_same_on_every_machine():
    """A table that a float rounds otherwise would make other features than the board's."""
    known = {"keywords": "01672630add6e823", "machines": "d7f9a9a8cfef9310"}
    for name, frontend in (("keywords", KEYWORDS), ("machines", MACHINES)):
        digest = hashlib.sha256()
        for values in dataclasses.astuple(tables(frontend)):
            digest.update(values.astype("<i8").tobytes())
        assert digest.hexdigest()[:16] == known[name]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"fft": 1000}, "fft = 1000: must be a power of two"),
        ({"frame": 2000}, "frame = 2000: must be even, and at most fft = 1024"),
        ({"hop": 0}, "hop = 0"),
        ({"window": "kaiser"}, "must be hann or hamming"),
        ({"high": 9000.0}, "low, high = 20, 9000"),
        ({"bands": 41}, "bands = 41: must be even"),
        ({"coefficients": 41}, "coefficients = 41: must lie between 1 and bands = 40"),
        ({"bits": 12}, "bits = 12"),
        ({"steps": 0}, "steps, finer = 0, 4"),
        ({"steps": 129}, "their product must be from 1 to 512"),
        ({"coefficients": None}, "finer = 4: log-mel energies have one scale"),
        ({"floor": -61}, "floor = -61"),
        ({"floor": -9}, "floor = -9: must lie between -60 and -10"),
        ({"reference": 3}, "reference = 3"),
    ],
)
def test_a_front_end_that_cannot_be_is_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        Frontend(**wrong)


def test_a_band_between_two_bins_is_refused_by_its_number():
    with pytest.raises(ValueError, match="band 0 lies between two bins; ask for fewer"):
        features(np.zeros(1000, np.int16), Frontend(frame=256, hop=128, fft=256, bands=80))


def test_a_waveform_that_is_none_is_refused():
    with pytest.raises(ValueError, match="float64: must be int16"):
        features(np.zeros(16_000))
    with pytest.raises(ValueError, match="samples = 600: a frame takes 640"):
        features(np.zeros(600, np.int16))


def test_a_coarser_window_is_seen_by_the_oracle(monkeypatch):
    true = tables(FINE["mfcc"])
    wrong = dataclasses.replace(true, window=true.window >> 6 << 6)
    monkeypatch.setattr(integers, "_tables", lambda frontend: wrong)
    assert max(errors(x, FINE["mfcc"]).max() for x in sounds().values()) > 0.05
