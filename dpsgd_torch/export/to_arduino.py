"""An Arduino sketch folder: the model as C, and a sketch that feeds it and prints what it says."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

from dpsgd_torch.export.c_text import comment, with_prefix
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.to_c import to_c

_MOTION = 119 * 6


def to_arduino(
    program: Program, name: str, *, output: str, input_range: tuple[float, float]
) -> dict[str, str]:
    """File name → text, for a folder called ``name``, as the Arduino IDE wants it.

    A model of 119 samples of six axes gets a sketch for the motion sensor of a Nano 33 BLE Sense;
    any other one that takes its input from the serial port.

    Args:
        program: the integer program.
        name: of folder and sketch.
        output: "probabilities" or "logits".
        input_range: the reals that the input may hold.
    """
    text = sketch(program, name, output=output, input_range=input_range)
    return {f"{name}.ino": text, **to_c(labelled(program))}


def sketch(
    program: Program,
    name: str,
    *,
    output: str,
    input_range: tuple[float, float],
    prefix: str = "model",
) -> str:
    """The sketch alone, of a model whose C has that prefix and labels."""
    motion = feels_motion(program)
    facts = {}
    if motion:
        facts["OUTPUT_IS_PROBABILITIES"] = str(int(output == "probabilities"))
    title = f"{name}: a sketch that needs no machine-learning library."
    body = "imu.ino" if motion else "serial.ino"
    return example(body, title, program, input_range=input_range, facts=facts, prefix=prefix)


def example(
    file: str,
    title: str,
    program: Program,
    *,
    input_range: tuple[float, float],
    facts: dict[str, str],
    prefix: str,
) -> str:
    """A file of ``sketch/`` that runs the model, after what it must know of it."""
    body = (files("dpsgd_torch.export") / "sketch" / file).read_text()
    ends = {"INPUT_LOW": f"({input_range[0]!r}f)", "INPUT_HIGH": f"({input_range[1]!r}f)"}
    about = [title, *(f"{key}: {value}" for key, value in program.provenance.items())]
    defines = "\n".join(f"#define {key} {value}" for key, value in {**ends, **facts}.items())
    return f"{comment(about)}\n{defines}\n{with_prefix(body, prefix)}"


def feels_motion(program: Program) -> bool:
    """Whether its input is that of the motion sensor: 119 samples of six axes."""
    return program.input.size == _MOTION


def labelled(program: Program) -> Program:
    """With the numbers of the outputs for labels, where these have no names."""
    if program.labels:
        return program
    return replace(program, labels=tuple(map(str, range(program.output.size))))
