"""An Arduino sketch folder: the model as C, and a sketch that feeds it and prints what it says."""

from __future__ import annotations

from importlib.resources import files

from dpsgd_torch.export.c_text import comment
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
    motion = program.input.size == _MOTION
    body = (
        files("dpsgd_torch.export") / "sketch" / ("imu.ino" if motion else "serial.ino")
    ).read_text()
    facts = [f"INPUT_LOW ({input_range[0]!r}f)", f"INPUT_HIGH ({input_range[1]!r}f)"]
    if motion:
        facts.append(f"OUTPUT_IS_PROBABILITIES {int(output == 'probabilities')}")
    about = [f"{name}: a sketch that needs no machine-learning library."]
    about += [f"{key}: {value}" for key, value in program.provenance.items()]
    defines = "\n".join(f"#define {fact}" for fact in facts)
    return {f"{name}.ino": f"{comment(about)}\n{defines}\n{body}", **to_c(program)}
