"""What to write in place of operators that TensorFlow Lite Micro has no integer kernel for."""

INSTEAD = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMin", "ReduceProd"), "ReduceMean or ReduceMax"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), "Conv1d of some dilations, which sees as many steps,"),
    "Attention": "Conv1d or Mul by a Sigmoid of ReduceMean",
    "Einsum": "Reshape, Transpose and MatMul by a constant",
    "Swish": "HardSwish",
}


def instead_of(operator: str) -> str:
    """For a message, after what is said of the operator.

    >>> instead_of("Swish")
    '; train with HardSwish in its place'
    """
    return f"; train with {INSTEAD[operator]} in its place" if operator in INSTEAD else ""
