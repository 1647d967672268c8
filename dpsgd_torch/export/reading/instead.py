"""What to write in place of operators that TensorFlow Lite Micro has no integer kernel for."""

INSTEAD = {
    **dict.fromkeys(("Elu", "Selu", "Celu", "PRelu", "ThresholdedRelu"), "LeakyRelu"),
    **dict.fromkeys(("Gelu", "Mish", "Softplus", "Softsign", "Swish"), "HardSwish"),
    **dict.fromkeys(("ReduceSum", "ReduceL2", "ReduceMin"), "ReduceMean or ReduceMax"),
    "LogSoftmax": "Softmax",
    "Pow": "Mul of a tensor with itself",
}


def instead_of(operator: str) -> str:
    """For a message, after what is said of the operator.

    >>> instead_of("Gelu")
    '; train with HardSwish in its place'
    """
    return f"; train with {INSTEAD[operator]} in its place" if operator in INSTEAD else ""
