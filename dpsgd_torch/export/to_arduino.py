"""An Arduino sketch folder: the model as C, and a sketch that feeds it and prints what it says."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

from dpsgd_torch.export.c_text import comment, with_prefix
from dpsgd_torch.export.frontend.stream import Stream, stream_to_c
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.to_c import to_c

_MOTION = 119 * 6
_AXES = 6

_ONCE = ("static const float THRESHOLD", "static const int SAMPLES", "static int8_t input[")
"""Lines that wait for a movement and hold it, which a stream needs not."""

_BEST = """    int best = 0;
    for (int i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
"""
_LABELS = "static const char *const labels[] = MODEL_LABELS;\n"


def to_arduino(
    program: Program,
    name: str,
    *,
    output: str,
    input_range: tuple[float, float],
    stream: Stream | None = None,
) -> dict[str, str]:
    """File name → text, for a folder called ``name``, as the Arduino IDE wants it.

    A model of 119 samples of six axes gets a sketch for the motion sensor of a Nano 33 BLE Sense;
    any other one that takes its input from the serial port. With a stream it answers all the time,
    and says how much of the time between two answers is left: motion, or sound from the board's
    microphone.

    Args:
        program: the integer program.
        name: of folder and sketch.
        output: "probabilities", "logits" or "values".
        input_range: the reals that the input may hold.
        stream: how often it answers, and what it makes of sound.

    Outputs without names are called by their numbers. Values have none: a stream of sound to an
    autoencoder prints how badly it copies, the mean squared error.

    Raises:
        ValueError: the stream does not fit the model, or holds neither sound nor motion; or values
            that no sketch prints.
    """
    if output == "values" and not (stream and stream.frontend and stream.copies):
        raise ValueError(
            "output = values: a sketch prints a label, or how badly a stream of sound is copied; "
            "give --every for such, or use --to c"
        )
    text = sketch(program, name, output=output, input_range=input_range, stream=stream)
    named = program if output == "values" else labelled(program)
    sources = stream_to_c(named, stream) if stream else to_c(named)
    return {f"{name}.ino": text, **sources}


def sketch(
    program: Program,
    name: str,
    *,
    output: str,
    input_range: tuple[float, float],
    prefix: str = "model",
    stream: Stream | None = None,
) -> str:
    """The sketch alone, of a model whose C has that prefix and labels."""
    motion = feels_motion(program)
    facts = {}
    if motion:
        facts["OUTPUT_IS_PROBABILITIES"] = str(int(output == "probabilities"))
    title = f"{name}: a sketch that needs no machine-learning library."
    body = _streaming(stream, motion) if stream else text_of("imu.ino" if motion else "serial.ino")
    return example(body, title, program, input_range=input_range, facts=facts, prefix=prefix)


def example(
    body: str,
    title: str,
    program: Program,
    *,
    input_range: tuple[float, float],
    facts: dict[str, str],
    prefix: str,
) -> str:
    """What runs the model, after what it must know of it."""
    ends = {"INPUT_LOW": f"({input_range[0]!r}f)", "INPUT_HIGH": f"({input_range[1]!r}f)"}
    about = [title, *(f"{key}: {value}" for key, value in program.provenance.items())]
    defines = "\n".join(f"#define {key} {value}" for key, value in {**ends, **facts}.items())
    return f"{comment(about)}\n{defines}\n{with_prefix(body, prefix)}"


def feels_motion(program: Program) -> bool:
    """Whether its input is that of the motion sensor: 119 samples of six axes, axes fastest."""
    sides = [side for side in program.input.shape if side > 1]
    return program.input.size == _MOTION and (len(sides) == 1 or sides[-1] == _AXES)


def labelled(program: Program) -> Program:
    """With the numbers of the outputs for labels, where these have no names."""
    if program.labels:
        return program
    return replace(program, labels=tuple(map(str, range(program.output.size))))


def text_of(name: str) -> str:
    """A file of ``sketch/``."""
    return (files("dpsgd_torch.export") / "sketch" / name).read_text()


def _streaming(stream: Stream, motion: bool) -> str:
    """Motion is read and quantized as where a movement is waited for; only the loop is another."""
    if stream.frontend:
        return _how_badly_copied(text_of("sound.ino")) if stream.copies else text_of("sound.ino")
    if not motion or stream.channels != _AXES:
        raise ValueError(
            f"channels = {stream.channels}: a sketch streams sound, or motion of six axes in "
            f"windows of {_MOTION} values"
        )
    head = text_of("imu.ino").partition("void loop()")[0].splitlines(keepends=True)
    kept = "".join(line for line in head if not line.startswith(_ONCE))
    return kept + text_of("imu_stream.ino")


def _how_badly_copied(sketch: str) -> str:
    """In place of the label with the largest output."""
    for label, error in (
        (_LABELS, ""),
        (_BEST, ""),
        ("Serial.print(labels[best]);", "Serial.print(model_error(), 6);"),
    ):
        assert sketch.count(label) == 1
        sketch = sketch.replace(label, error)
    return sketch
