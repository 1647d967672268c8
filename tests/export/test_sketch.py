"""The Arduino sketch, compiled and run on this machine against stand-ins for board and sensor.

What a board gives (Serial, IMU, setup and loop) stands in; sketch and model are the real ones.
"""

import numpy as np
import pytest
import torch
from sketches import build, needs_compiler, said_by
from torch import nn

from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.reference import run
from dpsgd_torch.export.to_arduino import to_arduino
from dpsgd_torch.export.to_onnx import to_onnx
from dpsgd_torch.tasks.gestures.synthetic import synthetic_recordings
from dpsgd_torch.tasks.gestures.task import gesture_inputs, gesture_mlp


def trained(softmax):
    """A network that tells made-up gestures apart; without privacy, which is not the point here."""
    low = 0.0 if softmax else -1.0
    recordings = synthetic_recordings((60, 60), seed=3)
    inputs = gesture_inputs(recordings.motion, (low, 1.0))
    targets = torch.from_numpy(recordings.gesture)
    model = gesture_mlp(torch.Generator().manual_seed(0), 2, softmax=softmax)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        outputs = model(inputs)
        loss = nn.functional.nll_loss(outputs.log(), targets) if softmax else (
            nn.functional.cross_entropy(outputs, targets))  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    program = compile_model(
        to_onnx(model.eval(), (714,), {"run": "r1"}),
        input_range=(low, 1.0),
        public_inputs=inputs.numpy(),
        labels=("hi", "sup"),
    )
    return program, (low, 1.0)


@needs_compiler
@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
def test_the_sketch_says_what_the_integers_say(tmp_path, softmax):
    program, input_range = trained(softmax)
    output = "probabilities" if softmax else "logits"
    texts = to_arduino(program, "wave", output=output, input_range=input_range)
    sketch = build(tmp_path, texts, "wave")
    motion = synthetic_recordings((8, 8), seed=4).motion.astype(np.float32)
    fed, expected = "", []
    for recording in motion:
        fed += "3 0 0 0 0 0\n"  # a movement begins, and this is its first sample
        recording = recording.copy()
        recording[0] = [3, 0, 0, 0, 0, 0]
        rows = [" ".join(f"{value:.9g}" for value in row) for row in recording]
        fed += "\n".join(rows[1:]) + "\n"
        inputs = gesture_inputs(recording[None], input_range).numpy()
        answer = run(program, program.quantize(inputs))
        real = program.output.scale * (answer[0].astype(float) - program.output.zero_point)
        if not softmax:
            real = np.exp(real - real.max()) / np.exp(real - real.max()).sum()
        best = int(answer[0].argmax())
        expected.append(f"{program.labels[best]} {real[best]:.3f}")
    said = said_by(sketch, fed.encode())
    assert said[0] == "move!"
    found = [line.split() for line in said[1:]]
    wanted = [line.split() for line in expected]
    assert [label for label, _ in found] == [label for label, _ in wanted]
    for (_, got), (_, told) in zip(found, wanted, strict=True):
        assert float(got) == pytest.approx(float(told), abs=2e-3)


@needs_compiler
def test_a_board_at_rest_says_nothing(tmp_path):
    program, input_range = trained(False)
    texts = to_arduino(program, "wave", output="logits", input_range=input_range)
    sketch = build(tmp_path, texts, "wave", resting=1)
    assert said_by(sketch, b"0.1 0.1 1 200 0 0\n" * 500) == ["move!"]


@needs_compiler
def test_a_model_of_images_reads_bytes_from_the_serial_port(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    for number, parameter in enumerate(model.parameters()):
        nn.init.uniform_(parameter, -0.5, 0.5, generator=torch.Generator().manual_seed(number))
    program = compile_model(
        to_onnx(model.eval(), (1, 8, 8), {}), input_range=(0.0, 1.0), labels=("a", "b", "c")
    )
    texts = to_arduino(program, "eyes", output="logits", input_range=(0.0, 1.0))
    sketch = build(tmp_path, texts, "eyes")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    answers = run(program, program.quantize(pixels.astype(np.float32) / 255))
    expected = [program.labels[best] for best in answers.argmax(axis=1)]
    assert said_by(sketch, pixels.tobytes()) == expected
    assert len(set(expected)) > 1


@needs_compiler
def test_outputs_without_names_are_told_by_their_numbers(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
    program = compile_model(to_onnx(model.eval(), (4,), {}), input_range=(0.0, 1.0))
    texts = to_arduino(program, "plain", output="logits", input_range=(0.0, 1.0))
    assert said_by(build(tmp_path, texts, "plain"), bytes(4)) == ["2"]
