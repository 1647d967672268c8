"""TensorFlow Lite Micro's own interpreter, on this machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.export.tflite_file import schema

_ARENA = 1 << 22


def interpret(content: bytes, inputs: NDArray[Any]) -> NDArray[Any]:
    """Outputs of a .tflite file, (batch, …), one example at a time.

    Args:
        content: the file.
        inputs: (batch, …), of the file's own type.
    """
    schema()  # says what to install
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=_ARENA)
    rows = []
    for row in inputs:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        rows.append(np.array(interpreter.get_output(0))[0])
    return np.stack(rows)
