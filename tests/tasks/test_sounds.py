"""Folders of WAV files as they are found: read, or refused by the name of the bad file."""

import shutil
import struct
import wave
import zlib

import numpy as np
import pytest
import torch

from dpsgd_torch.errors import DataError
from dpsgd_torch.export.frontend.as_model import frontend_as_model, sample_bytes
from dpsgd_torch.export.host import run_on_host
from dpsgd_torch.features.sound import KEYWORDS, MACHINES
from dpsgd_torch.tasks.machines.features import vectors
from dpsgd_torch.tasks.machines.files import read_machines
from dpsgd_torch.tasks.machines.task import auc, machines_task, pair_of
from dpsgd_torch.tasks.speech.files import Clip, read_clip, read_commands
from dpsgd_torch.tasks.speech.synthetic import LABELS, WORDS
from dpsgd_torch.tasks.speech.task import inputs_of, speech_task
from dpsgd_torch.tasks.wav import read_wav, to_int16

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


def write(path, samples=16_000, *, rate=16_000, channels=1, width=2, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(-9000, 9000, samples * channels)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(values.astype({1: "u1", 2: "<i2"}[width]).tobytes())
    return values


@pytest.fixture
def commands(tmp_path):
    """A small Speech Commands: ten words and one more, three speakers, two seconds of noise."""
    for number, word in enumerate((*WORDS, "bed")):
        for who in ("0a7c2a8d", "1b88bf70", "2da58b32"):
            write(tmp_path / word / f"{who}_nohash_0.wav", 16_000 - 100 * number, seed=number)
    write(tmp_path / "_background_noise_" / "hum.wav", 10 * 16_000)
    (tmp_path / "_background_noise_" / "README.md").write_text("noise")
    (tmp_path / "validation_list.txt").write_text("up/1b88bf70_nohash_0.wav\n")
    tested = "\n".join(f"{word}/2da58b32_nohash_0.wav" for word in WORDS)
    (tmp_path / "testing_list.txt").write_text(f"{tested}\n")
    return tmp_path


def test_samples_are_what_was_written(tmp_path):
    values = write(tmp_path / "a.wav", 50)
    assert np.array_equal(read_wav(tmp_path / "a.wav") * 32768, values)


def test_lists_say_what_is_tested_on_and_what_is_in_neither(commands):
    train, test = read_commands(commands, 1)
    spoken = [clip for clip in train if clip.begin is None]
    assert len(spoken) == 33 - 10 - 1
    assert sorted(LABELS[clip.label] for clip in test if clip.begin is None) == sorted(WORDS)
    assert not any("up/1b88bf70" in str(clip.path) for clip in (*train, *test))
    assert {clip.speaker for clip in test if clip.begin is None} == {"2da58b32"}
    assert sum(LABELS[clip.label] == "unknown" for clip in train) == 3


def test_no_sample_of_noise_is_trained_on_and_tested_with(commands):
    train, test = read_commands(commands, 1)
    seconds = [
        {at for c in part if c.begin is not None for at in range(c.begin, c.begin + 16_000)}
        for part in (train, test)
    ]
    assert all(seconds)
    assert not seconds[0] & seconds[1]


def test_a_short_recording_is_followed_by_silence(commands):
    train, _ = read_commands(commands, 1)
    clip = next(c for c in train if c.path.parent.name == "yes")
    sound = read_clip(clip)
    assert sound.shape == (16_000,)
    assert not sound[-900:].any()
    assert sound[:15_100].any()


def test_whether_another_words_recording_is_read_its_name_alone_says(commands):
    for number in range(40):
        write(commands / "bed" / f"{number:08x}_nohash_1.wav", 800, seed=number)
    names = {c.path.name for c in read_commands(commands, 4)[0] if c.path.parent.name == "bed"}
    assert 0 < len(names) < 25
    for name in names:
        assert zlib.crc32(f"bed/{name}".encode()) % 4 == 0
    gone = sorted(names)[0]
    (commands / "bed" / gone).unlink()
    left = {c.path.name for c in read_commands(commands, 4)[0] if c.path.parent.name == "bed"}
    assert left == names - {gone}


def test_a_folder_of_speech_is_a_task_with_speakers(commands):
    task = speech_task("none", commands, 1)
    assert task.train[0].shape[1:] == (1, 49, 10)
    assert task.labels == LABELS
    assert not task.synthetic
    assert task.test[1].bincount(minlength=12)[:10].tolist() == [1] * 10
    recordings = task.train[1] != LABELS.index("silence")
    speakers = task.units["speaker"]
    assert len(speakers[recordings].unique()) == 3
    assert len(speakers.unique()) == 3 + int((~recordings).sum())
    assert "one recording unless a speaker is asked for" in task.note


def long(path):
    write(path, 16_001)


def stereo(path):
    write(path, channels=2)


def at_44100(path):
    write(path, rate=44_100)


def eight_bits(path):
    write(path, width=1)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1001])


def no_wav(path):
    path.write_bytes(b"<html>not found</html>")


def empty(path):
    path.write_bytes(b"")


def no_samples(path):
    write(path, 0)


def floats(path):
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 40, b"WAVE", b"fmt ", 16, 3, 1, 16000, 64000,
                       4, 32, b"data", 4)  # fmt: skip
    path.write_bytes(head + struct.pack("<f", 0.5))


SPOILT = [
    (long, "has 16001 samples; must be one second"),
    (stereo, "has 2 channels of 16 bits at 16000 Hz; needs one"),
    (at_44100, "has 1 channels of 16 bits at 44100 Hz; needs one"),
    (eight_bits, "has 1 channels of 8 bits"),
    (cut_short, "samples; fetch it again"),
    (no_wav, "cannot be read as WAV"),
    (empty, "cannot be read as WAV"),
    (no_samples, "holds 0 of 0 samples"),
    (floats, "cannot be read as WAV"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILT)
def test_a_bad_recording_is_refused_by_name(spoil, words, commands):
    path = commands / "left" / "1b88bf70_nohash_0.wav"
    spoil(path)
    with pytest.raises(DataError, match=words) as refused:
        speech_task("none", commands, 1)
    assert "left/1b88bf70_nohash_0.wav: " in str(refused.value)
    assert "\n" not in str(refused.value)


def refused(read, folder, words):
    with pytest.raises(DataError, match=words):
        read(folder, 1)


def test_a_folder_that_is_no_speech_commands_is_refused_by_what_it_lacks(commands):
    (commands / "up" / "nobody.wav").write_bytes(b"")
    refused(read_commands, commands, r"nobody\.wav: its name does not say the speaker")
    (commands / "up" / "nobody.wav").unlink()
    (commands / "testing_list.txt").write_text("up/gone.wav\n")
    refused(read_commands, commands, r"testing_list\.txt, line 1: 'up/gone\.wav' is not there")
    (commands / "testing_list.txt").write_text("")
    (commands / "_background_noise_" / "hum.wav").unlink()
    refused(read_commands, commands, "_background_noise_ has no WAV file")
    (commands / "down").rename(commands / "downwards")
    refused(read_commands, commands, "has no folder down")
    (commands / "validation_list.txt").unlink()
    refused(read_commands, commands, r"validation_list\.txt: cannot be read")


@pytest.fixture
def machine(tmp_path):
    """A small ToyCar."""
    for number in range(3):
        write(tmp_path / "train" / f"normal_id_01_0000000{number}.wav", 32_000, seed=number)
    write(tmp_path / "test" / "normal_id_01_00000000.wav", 32_000, seed=10)
    write(tmp_path / "test" / "anomaly_id_01_00000000.wav", 16_000, seed=11)
    return tmp_path


def test_vectors_are_five_frames_one_after_the_other(machine):
    sound = read_wav(machine / "train" / "normal_id_01_00000000.wav")
    every, fifth = vectors(sound, 1), vectors(sound, 5)
    frames = 1 + (32_000 - 1024) // 512
    assert len(every) == frames - 4
    assert np.array_equal(every[::5], fifth)
    assert np.array_equal(every[0, 128:], every[1, :512])


def test_recordings_are_units_and_unusual_ones_are_tested_on_alone(machine):
    task = machines_task("none", machine, 5)
    each = len(vectors(np.zeros(32_000, np.float32), 5))
    assert task.units["recording"].bincount().tolist() == [each] * 3
    assert torch.equal(task.train[0], task.train[1][:, :640])
    assert not task.train[1][:, 641].any()
    unusual = task.test[1][:, 641]
    assert unusual.bool().sum() == len(vectors(np.zeros(16_000, np.float32), 5))
    assert task.output == "values"
    assert task.labels == ()


def test_the_area_counts_recordings_and_not_their_vectors(machine):
    targets = pair_of(read_machines(machine, 5)[1])[1]
    for worse, expected in ((1, 1.0), (0, 0.0)):
        outputs = targets[:, :640] + (targets[:, 641:] == worse)
        assert auc(outputs, targets) == expected
    assert auc(targets[:, :640], targets) == 0.5
    assert auc(targets[:1, :640], targets[:1]).isnan()


@pytest.mark.parametrize(("spoil", "words"), SPOILT[1:])
def test_a_bad_machine_sound_is_refused_by_name(spoil, words, machine):
    path = machine / "train" / "normal_id_01_00000001.wav"
    spoil(path)
    with pytest.raises(DataError, match=words) as refused:
        read_machines(machine, 5)
    assert "train/normal_id_01_00000001.wav: " in str(refused.value)


def test_machine_folders_that_do_not_fit_are_refused_by_name(machine):
    short = machine / "train" / "normal_id_01_00000009.wav"
    write(short, 3071)
    refused(read_machines, machine, r"00000009\.wav: has 3071 samples; needs 3072, five frames")
    short.rename(machine / "train" / "usual.wav")
    refused(read_machines, machine, r"usual\.wav: its name begins with neither")
    write(machine / "train" / "usual.wav", 3072)
    (machine / "train" / "usual.wav").rename(machine / "train" / "anomaly_id_01.wav")
    refused(read_machines, machine, r"anomaly_id_01\.wav: is unusual and to be trained on")
    (machine / "train" / "anomaly_id_01.wav").unlink()
    (machine / "test" / "anomaly_id_01_00000000.wav").unlink()
    refused(read_machines, machine, "test: has normal recordings alone; needs both")
    (machine / "test" / "normal_id_01_00000000.wav").unlink()
    refused(read_machines, machine, "test has no WAV file")


def recorded(folder):
    """A recording, and what a board's C makes of its first frames."""
    path = folder / "train" / "normal_id_01_00000000.wav"
    return path, write(path, 16_000, seed=5).astype("<i2")


@needs_gcc
def test_a_network_of_words_is_given_the_bits_that_the_board_computes(tmp_path):
    path, samples = recorded(tmp_path)
    found = inputs_of([read_clip(Clip(path, None, 0, ""))])
    frames = np.stack([samples[start : start + 640] for start in range(0, 16_000 - 639, 320)])
    on_board = run_on_host(frontend_as_model(KEYWORDS), sample_bytes(frames))
    assert np.array_equal(found[0, 0].numpy() * 128, on_board)


@needs_gcc
def test_a_network_of_machines_is_given_the_bits_that_the_board_computes(tmp_path):
    path, samples = recorded(tmp_path)
    found = vectors(read_wav(path), 5)
    frames = np.stack([samples[start : start + 1024] for start in range(0, 30 * 512, 512)])
    on_board = run_on_host(frontend_as_model(MACHINES), sample_bytes(frames[:25]))
    assert np.array_equal(found[:5].reshape(25, 128) * 128, on_board)


def test_samples_come_back_from_floats_as_they_were():
    samples = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(to_int16(samples.astype(np.float32) / 32768), samples)
    assert to_int16(np.array([1.5, -1.5], np.float32)).tolist() == [32767, -32768]
