"""Sketches that answer all the time, compiled and run against stand-ins for board and sensors."""

import numpy as np
import pytest
from hand_built_programs import conv_step, dense_step, gesture_program
from sketches import build, needs_compiler, said_by
from sounds import sounds

from dpsgd_torch.export.frontend.stream import Stream
from dpsgd_torch.export.program import Program, Tensor, Window
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_arduino import to_arduino
from dpsgd_torch.features.sound import KEYWORDS, features
from dpsgd_torch.tasks.gestures.task import gesture_inputs

LABELS = ("yes", "no", "up", "down")
SOUND = np.concatenate(list(sounds().values()))
LISTENING = Stream(every=3200, frontend=KEYWORDS)


def keywords():
    rng = np.random.default_rng(3)
    conv = conv_step(rng, (49, 10, 1), 3, Window((8, 4), (4, 2)))
    steps = (conv, dense_step(rng, conv.output.size, 4))
    return Program(Tensor((49, 10, 1), KEYWORDS.unit, 0), steps, labels=LABELS)


def listening(folder, **how):
    texts = to_arduino(
        keywords(),
        "words",
        output="logits",
        input_range=KEYWORDS.input_range,
        stream=LISTENING,
    )
    return build(folder, texts, "words", **how)


@needs_compiler
def test_what_is_heard_is_answered_every_3200_samples_with_the_time_left(tmp_path):
    sketch = listening(tmp_path, between="PDM.hear()", pace=20)
    said = said_by(sketch, SOUND.tobytes())
    program, length = keywords(), KEYWORDS.samples(49)
    expected = []
    for start in range(0, len(SOUND) - length + 1, 3200):
        row = features(SOUND[start : start + length]).reshape(1, 49, 10, 1)
        expected.append(LABELS[int(run(program, row).argmax())])
    assert said[0] == "listening!"
    assert [line.split(";")[0] for line in said[1:]] == expected
    assert len(set(expected)) > 1
    period = 200_000  # 3200 samples, taken in 13 blocks of 256 at most: each look takes 20 us
    lefts = [int(line.split(": ")[1]) for line in said[2:]]
    assert all(abs(period - 13 * 20 - left) <= 16_000 for left in lefts)
    for line in said[2:]:
        whole, left = int(line.split(" ")[4][:-1]), int(line.split(": ")[1])
        assert (whole - left) % 20 == 0
        assert 0 < whole - left <= 20 * 14


@needs_compiler
def test_a_board_that_is_too_slow_says_so_and_begins_anew(tmp_path):
    between = "static int n; for (int k = 0; k < (n == 70 ? 40 : 1); ++k) PDM.hear(); ++n"
    said = said_by(listening(tmp_path, between=between), SOUND.tobytes())
    slow = said.index("too slow: samples were lost")
    assert said.count("too slow: samples were lost") == 1
    assert slow == 1 + (70 * 256 - KEYWORDS.samples(49)) // 3200 + 1
    after = len(SOUND) - (70 + 40) * 256
    assert len(said) - slow - 1 == 1 + (after - KEYWORDS.samples(49)) // 3200


@needs_compiler
def test_motion_is_answered_every_12_rows_with_the_time_left(tmp_path):
    program, low, high = gesture_program(), -1.0, 1.0
    texts = to_arduino(
        program,
        "wave",
        output="probabilities",
        input_range=(low, high),
        stream=Stream(channels=6, every=12),
    )
    sketch = build(tmp_path, texts, "wave", pace=30)
    rng = np.random.default_rng(0)
    motion = np.concatenate([rng.uniform(-4, 4, (400, 3)), rng.uniform(-2000, 2000, (400, 3))], 1)
    motion = motion.astype(np.float32)
    fed = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in motion) + "\n"
    said = said_by(sketch, fed.encode())
    expected = []
    for start in range(0, 400 - 118, 12):
        window = gesture_inputs(motion[None, start : start + 119], (low, high)).numpy()
        answer = run(program, program.quantize(window))[0]
        expected.append(program.labels[int(answer.argmax())])
    assert [line.split(" ")[0] for line in said[1:]] == expected
    assert len(expected) == 24
    whole = 1e6 * 12 / 119
    for line in said[2:]:
        assert int(line.split(" ")[5][:-1]) == pytest.approx(whole, abs=1)
        assert int(line.split(": ")[1]) == pytest.approx(whole - 12 * 30, abs=1)


def test_a_stream_of_neither_sound_nor_motion_has_no_sketch():
    program = keywords()
    with pytest.raises(ValueError, match="channels = 10: a sketch streams sound, or motion"):
        to_arduino(
            program,
            "x",
            output="logits",
            input_range=(0, 1),
            stream=Stream(channels=10, every=5),
        )
