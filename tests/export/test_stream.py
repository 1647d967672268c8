"""Samples pushed as they come are answered as numpy answers whole windows, bit for bit."""

import dataclasses
import struct
import subprocess

import numpy as np
import pytest
from hand_built_programs import conv_step, dense_step, gesture_program
from sounds import hostile, sounds

from dpsgd_torch.export.boards import board
from dpsgd_torch.export.emulate import available_boards, run_on
from dpsgd_torch.export.frontend.as_model import sample_bytes, stream_as_model
from dpsgd_torch.export.frontend.stream import Stream, stream_to_c
from dpsgd_torch.export.program import Program, Tensor, Window
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.toolchain import WARNINGS, has
from dpsgd_torch.features.sound import KEYWORDS, MACHINES, features

MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include "model_stream.h"

/* Counts and samples from stdin; after each push how many answers there were, and the last. */
int main(void)
{
    uint32_t count;
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        SAMPLE *samples = malloc(sizeof(SAMPLE) * MODEL_CHANNELS * (count + 1));
        int8_t output[MODEL_OUTPUT_SIZE] = {0};
        unsigned char answers;
        if (!samples || fread(samples, sizeof(SAMPLE) * MODEL_CHANNELS, count, stdin) != count) {
            return 1;
        }
        if (count == FORGET) {
            model_forget();
        }
        answers = (unsigned char)model_push(samples, count == FORGET ? 0 : count, output);
        fwrite(&answers, 1, 1, stdout);
        fwrite(output, 1, sizeof output, stdout);
        free(samples);
    }
    return 0;
}
"""
FORGET = 7777
"""So many samples are not pushed, but forgotten with all before them."""


def sound_program(frontend, rows):
    rng = np.random.default_rng(3)
    conv = conv_step(rng, (rows, frontend.features, 1), 3, Window((8, 4), (4, 2)))
    steps = (conv, dense_step(rng, conv.output.size, 4))
    return Program(Tensor((rows, frontend.features, 1), frontend.unit, 0), steps)


def pushed(folder, program, stream, samples, chunks):
    """(answers of each push, last output of each push) in C under sanitizers."""
    for name, text in stream_to_c(program, stream).items():
        (folder / name).write_text(text)
    kind = "int16_t" if stream.frontend else "int8_t"
    (folder / "main.c").write_text(MAIN)
    command = ["gcc", *WARNINGS, "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command += [f"-DSAMPLE={kind}", f"-DFORGET={FORGET}"]
    files = sorted(path.name for path in folder.glob("*.c"))
    subprocess.run([*command, *files, "-o", "program"], cwd=folder, check=True)
    fed, at = b"", 0
    for chunk in chunks:
        fed += struct.pack("<I", chunk) + samples[at : at + chunk].tobytes()
        at += chunk
    ended = subprocess.run([folder / "program"], input=fed, capture_output=True, check=True)
    told = np.frombuffer(ended.stdout, np.int8).reshape(len(chunks), -1)
    return told[:, 0], told[:, 1:]


def random_chunks(total, most, seed):
    rng = np.random.default_rng(seed)
    chunks = []
    while sum(chunks) < total:
        chunks.append(int(min(rng.integers(0, most + 1), total - sum(chunks))))
    return chunks


def of_whole_windows(program, stream, samples):
    """What the model says of each window, cut from the whole."""
    length = stream.samples(program.input.size)
    starts = range(0, len(samples) - length + 1, stream.every)
    windows = [samples[start : start + length] for start in starts]
    if stream.frontend:
        windows = [features(window, stream.frontend) for window in windows]
    inputs = np.stack(windows).reshape(len(windows), *program.input.shape)
    return run(program, inputs).reshape(len(windows), -1)


needs_gcc = pytest.mark.skipif(not has("gcc"), reason="gcc is not installed")
SOUND = np.concatenate([*sounds().values(), *list(hostile().values())[:5]])
MOTION = np.random.default_rng(4).integers(-128, 128, (1500, 6), dtype=np.int8)
CASES = {
    "keywords": (sound_program(KEYWORDS, 49), Stream(every=3200, frontend=KEYWORDS), SOUND),
    "every hop": (sound_program(KEYWORDS, 9), Stream(every=320, frontend=KEYWORDS), SOUND[:30_000]),
    "nothing kept": (sound_program(KEYWORDS, 10), Stream(every=3200, frontend=KEYWORDS), SOUND),
    "no overlap": (
        sound_program(dataclasses.replace(KEYWORDS, hop=640), 12),
        Stream(every=1280, frontend=dataclasses.replace(KEYWORDS, hop=640)),
        SOUND[:40_000],
    ),
    "motion": (gesture_program(), Stream(channels=6, every=12), MOTION),
    "every row": (gesture_program(), Stream(channels=6, every=1), MOTION[:300]),
    "whole windows": (gesture_program(), Stream(channels=6, every=119), MOTION),
}


@needs_gcc
@pytest.mark.parametrize("name", CASES)
def test_pushed_in_any_parts_the_answers_are_those_to_whole_windows(tmp_path, name):
    program, stream, samples = CASES[name]
    chunks = random_chunks(len(samples), stream.every, seed=5)
    counts, outputs = pushed(tmp_path, program, stream, samples, chunks)
    assert counts.max() == 1
    expected = of_whole_windows(program, stream, samples)
    assert (outputs[counts == 1] == expected).all()
    assert len(np.unique(expected, axis=0)) > 3
    taken = np.cumsum(chunks)[counts == 1] - stream.samples(program.input.size)
    assert (taken // stream.every == np.arange(len(expected))).all()


@needs_gcc
def test_of_many_samples_at_once_the_last_answer_is_told_and_all_are_counted(tmp_path):
    program, stream, samples = CASES["motion"]
    counts, outputs = pushed(tmp_path, program, stream, samples, [len(samples)])
    expected = of_whole_windows(program, stream, samples)
    assert counts[0] == len(expected)
    assert (outputs[0] == expected[-1]).all()


@needs_gcc
@pytest.mark.parametrize("name", ["keywords", "motion"])
def test_what_is_forgotten_is_in_no_window(tmp_path, name):
    program, stream, samples = CASES[name]
    before = stream.samples(program.input.size) - 1
    chunks = [before, FORGET]
    samples = np.concatenate([samples] * 8)[: 2 * before + FORGET + stream.every + 1]
    chunks += random_chunks(len(samples) - sum(chunks), stream.every, seed=6)
    counts, outputs = pushed(tmp_path, program, stream, samples, chunks)
    expected = of_whole_windows(program, stream, samples[before + FORGET :])
    assert (outputs[counts == 1] == expected).all()


@pytest.mark.parametrize("name", ["unicorn-m4", "netduinoplus2", "riscv32-virt"])
def test_a_board_answers_the_same(name):
    where = board(name)
    if where not in available_boards():
        pytest.skip(f"{name} cannot be emulated here")
    for case in ("keywords", "motion"):
        program, stream, samples = CASES[case]
        samples = samples[: 16 * stream.every]
        parts = samples.reshape(16, -1)
        ran = run_on(
            where,
            stream_as_model(program, stream),
            sample_bytes(parts) if stream.frontend else parts,
        )
        expected = of_whole_windows(program, stream, samples)
        late = -(-stream.samples(program.input.size) // stream.every) - 1
        assert len(expected) == 16 - late
        assert (ran.outputs[late:] == expected).all()


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        (Stream(channels=5, every=12), "714 values: must be a multiple of 5, a row"),
        (Stream(channels=6, every=0), "every = 0: must be a multiple of 1"),
        (Stream(channels=6, every=120), "every = 120: the window moves by 119 samples at most"),
        (Stream(every=4800, frontend=KEYWORDS), "input has scale .* features 0.0078125 and 0"),
        (
            Stream(every=4800, frontend=dataclasses.replace(KEYWORDS, bits=16)),
            "bits = 16: a model takes int8",
        ),
    ],
)
def test_a_stream_that_does_not_fit_its_model_is_refused(stream, rule):
    with pytest.raises(ValueError, match=rule):
        stream_to_c(gesture_program(), stream)


@pytest.mark.parametrize("every", [100, 5000])
def test_sound_is_answered_after_whole_hops(every):
    with pytest.raises(ValueError, match=f"every = {every}: must be a multiple of 320, the hop"):
        stream_to_c(sound_program(KEYWORDS, 49), Stream(every=every, frontend=KEYWORDS))


def test_machines_are_heard_in_windows_of_five_frames():
    stream = Stream(every=512, frontend=MACHINES)
    assert stream.samples(640) == 1024 + 4 * 512
    assert stream.leaving(640) == 128
