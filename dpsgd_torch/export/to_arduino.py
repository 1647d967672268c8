"""An Arduino sketch folder: the model as C, and a sketch that feeds it and prints what it says."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

from dpsgd_torch.export.c_text import comment
from dpsgd_torch.export.frontend.stream import Stream, stream_to_c
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.to_c import to_c

_MOTION = 119 * 6

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
    if output != "values" and not program.labels:
        program = replace(program, labels=tuple(map(str, range(program.output.size))))
    motion = program.input.size == _MOTION
    if stream:
        body = _stream_sketch(stream, motion)
    else:
        body = _sketch("imu.ino" if motion else "serial.ino")
    facts = [f"INPUT_LOW ({input_range[0]!r}f)", f"INPUT_HIGH ({input_range[1]!r}f)"]
    if motion:
        facts.append(f"OUTPUT_IS_PROBABILITIES {int(output == 'probabilities')}")
    about = [f"{name}: a sketch that needs no machine-learning library."]
    about += [f"{key}: {value}" for key, value in program.provenance.items()]
    defines = "\n".join(f"#define {fact}" for fact in facts)
    sources = stream_to_c(program, stream) if stream else to_c(program)
    return {f"{name}.ino": f"{comment(about)}\n{defines}\n{body}", **sources}


def _sketch(name: str) -> str:
    return (files("dpsgd_torch.export") / "sketch" / name).read_text()


def _stream_sketch(stream: Stream, motion: bool) -> str:
    """Motion is read and quantized as where a movement is waited for; only the loop is another."""
    if stream.frontend:
        return _how_badly_copied(_sketch("sound.ino")) if stream.copies else _sketch("sound.ino")
    if not motion or stream.channels != 6:
        raise ValueError(
            f"channels = {stream.channels}: a sketch streams sound, or motion of six axes in "
            f"windows of {_MOTION} values"
        )
    head = _sketch("imu.ino").partition("void loop()")[0].splitlines(keepends=True)
    kept = "".join(line for line in head if not line.startswith(_ONCE))
    return kept + _sketch("imu_stream.ino")


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
