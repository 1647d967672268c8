"""ONNX files, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from dpsgd_torch.errors import told
from dpsgd_torch.features.model_files.program import Program, only, refused

_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
}


def read_onnx(name: str, content: bytes) -> Program:
    """The model of an ONNX file that holds all of itself.

    Raises:
        ConfigError: no ONNX, operators or an opset that onnxruntime does not know, weights in other
            files, or several inputs or outputs.
    """
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        install = "pip install 'dpsgd_torch[export]'"
        raise refused(name, f"needs onnxruntime ({error.name} is missing); {install}") from None
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's, of several modules
        raise refused(name, f"is no ONNX ({told(error)}); export it again") from None
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise refused(
                name,
                f"keeps {tensor.name} in another file, which its digest does not cover; save it as "
                "one file",
            )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, one class an error code
        raise refused(
            name, f"onnxruntime cannot run it ({told(error)}); export it for an opset it knows"
        ) from None
    taken = only(name, "input", session.get_inputs())
    given = only(name, "output", session.get_outputs())
    if taken.type not in _TYPES:
        raise refused(name, f"takes {taken.type}, and rows are numbers; export it for float32")

    def run(rows: torch.Tensor) -> Any:
        fed = rows.to(_TYPES[taken.type]).numpy()
        return torch.from_numpy(session.run([given.name], {taken.name: fed})[0])

    return Program(run, tuple(each if isinstance(each, int) else None for each in taken.shape))


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All tensors within a protobuf message, however deep."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if hasattr(value, "__len__") else [value]:
                yield from _tensors(each, kind)
