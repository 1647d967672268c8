"""Networks of sound from a run to a sketch that listens: the bits of training are the board's."""

from functools import lru_cache

import numpy as np
import pytest
from sketches import build, needs_compiler, said_by
from sounds import sounds
from tiny_runs import tiny_run

from dpsgd_torch.app.export.source import load_data, read_run
from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.export.calibration.passes import calibration_of
from dpsgd_torch.export.compiler import compile_model, to_channels_last
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.features.sound import KEYWORDS, MACHINES, features
from dpsgd_torch.tasks.registry import kind_of, public_inputs

NAMES = {"keyword-spotting": (KEYWORDS, 49), "anomaly-detection": (MACHINES, 5)}
EACH = pytest.mark.parametrize("name", NAMES)
SOUND = np.concatenate(list(sounds().values()))

pytestmark = pytest.mark.filterwarnings("ignore:local, not covered by ε")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {name: tiny_run(name, tmp_path_factory.mktemp(name), "none") for name in NAMES}


@lru_cache(maxsize=2)
def program_of(folder):
    """The integers, as an export makes them."""
    source = read_run(folder)
    return compile_model(
        to_onnx(source.model, source.input_shape, {}),
        input_range=source.input_range,
        public_inputs=public_inputs(source.config)(400).numpy(),
        labels=source.labels,
        calibration=calibration_of(kind_of(source.config.dataset).calibration),
    )


@EACH
def test_every_runtime_says_the_same_of_the_features_tested_on(runs, name, monkeypatch, capsys):
    monkeypatch.setattr("dpsgd_torch.export.check.available_boards", list)
    assert export([str(runs[name]), "--to", "c", "--check", "--inputs", "40"]) == 0
    said = capsys.readouterr().out.splitlines()
    size = 40 * program_of(runs[name]).output.size
    same = [line for line in said if f"0 of {size} bytes differ" in line]
    assert any("TensorFlow Lite Micro" in line for line in same)
    assert not any("DIFFERS" in line for line in said)


@EACH
def test_what_is_tested_on_goes_into_the_integers_as_the_front_end_made_it(runs, name):
    inputs = load_data(read_run(runs[name]), None).test[0].numpy()
    integers = program_of(runs[name]).quantize(to_channels_last(inputs))
    assert np.array_equal(integers.reshape(inputs.shape), inputs * 128)
    assert len(np.unique(integers)) > 50


def sketch_of(folder, out, every):
    assert export([str(folder), "--to", "arduino", "--every", str(every), "--out", str(out)]) == 0
    texts = {path.name: path.read_text() for path in out.iterdir() if path.suffix != ".txt"}
    return said_by(build(out, texts, out.name, between="PDM.hear()", pace=1), SOUND.tobytes())


def answers(program: Program, frontend, frames, every):
    """(windows as the network takes them, outputs) of the whole sound, window by window."""
    length = frontend.samples(frames)
    starts = range(0, len(SOUND) - length + 1, every)
    windows = np.stack([features(SOUND[start : start + length], frontend) for start in starts])
    windows = windows.reshape(-1, *program.input.shape)
    return windows, run(program, windows).reshape(len(windows), -1)


@needs_compiler
def test_a_sketch_of_words_listens_and_says_what_the_integers_say(runs, tmp_path):
    program = program_of(runs["keyword-spotting"])
    said = sketch_of(runs["keyword-spotting"], tmp_path / "words", 3200)
    expected = [program.labels[i] for i in answers(program, KEYWORDS, 49, 3200)[1].argmax(axis=1)]
    assert [line.split(";")[0] for line in said] == ["listening!", *expected]
    assert len(expected) == 21


@needs_compiler
@pytest.mark.parametrize("every", [512, 2560])
def test_a_sketch_of_a_machine_listens_and_says_how_badly_it_is_copied(runs, tmp_path, every):
    program = program_of(runs["anomaly-detection"])
    said = sketch_of(runs["anomaly-detection"], tmp_path / "machine", every)
    windows, outputs = answers(program, MACHINES, 5, every)
    heard, copied = (
        tensor.scale * (values.reshape(len(windows), -1).astype(float) - tensor.zero_point)
        for tensor, values in ((program.input, windows), (program.output, outputs))
    )
    expected = np.square(heard - copied).mean(axis=1)
    told = [float(line.split(";")[0]) for line in said[1:]]
    assert said[0] == "listening!"
    assert told == pytest.approx(expected, abs=2e-6)
    assert expected.max() > 2 * expected.min()


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("anomaly-detection", ["--to", "arduino"], "output = values: a sketch prints a label"),
        ("keyword-spotting", ["--to", "arduino", "--every", "100"],
         "every = 100: must be a multiple of 320, the hop"),
        ("keyword-spotting", ["--to", "arduino", "--every", "0"],
         "every = 0: must be at least 1, of a sketch"),
        ("anomaly-detection", ["--to", "arduino", "--every", "3072"],
         "every = 3072: the window moves by 2560 samples at most"),
        ("keyword-spotting", ["--to", "c", "--every", "3200"],
         "every = 3200: must be at least 1, of a sketch; drop it, or use --to arduino"),
    ],
)  # fmt: skip
def test_a_sketch_that_cannot_be_is_refused_in_one_line(runs, name, flags, words, tmp_path, capsys):
    out = tmp_path / "out"
    assert export([str(runs[name]), *flags, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not out.exists()
