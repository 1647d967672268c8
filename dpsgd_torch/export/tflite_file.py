"""A .tflite file put together piece by piece: tensors, operators, one subgraph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError

_VERSION = 3  # of the TensorFlow Lite schema


def schema() -> Any:
    """The generated classes of the schema, which the tflite-micro wheel ships."""
    try:
        from tflite_micro.tensorflow.lite.micro.python import schema_py_generated
    except ImportError as error:
        raise ExportError(
            "to = tflite: needs the wheel tflite-micro; pip install 'dpsgd_torch[export]' "
            "(its authors build it for Linux on x86-64), or use --to c"
        ) from error
    return schema_py_generated


class TfliteFile:
    """Grows an operator at a time; ``content`` gives the bytes, the same for the same calls."""

    def __init__(self) -> None:
        self.schema = schema()
        self._buffers = [self.schema.BufferT()]  # the first is empty by convention
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}

    def constant(self, name: str, values: NDArray[Any], **quantization: Any) -> int:
        """A tensor whose values lie in the file; returns its index."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(buffer)
        return self._add(name, values.shape, values.dtype, len(self._buffers) - 1, quantization)

    def value(self, name: str, shape: tuple[int, ...], kind: Any, **quantization: Any) -> int:
        """A tensor that is computed, of one example."""
        return self._add(name, (1, *shape), np.dtype(kind), 0, quantization)

    def _add(
        self, name: str, shape: tuple[int, ...], kind: Any, buffer: int, quantization: Any
    ) -> int:
        types = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape = name, np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, types[kind.name])
        tensor.buffer = buffer
        if quantization:
            params = self.schema.QuantizationParametersT()
            params.scale = np.atleast_1d(quantization["scale"]).astype(np.float32)
            zero_point = np.atleast_1d(quantization.get("zero_point", 0))
            params.zeroPoint = np.broadcast_to(zero_point, params.scale.shape).astype(np.int64)
            params.quantizedDimension = quantization.get("axis", 0)
            tensor.quantization = params
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def operator(
        self, name: str, inputs: list[int], output: int, options: str = "", **fields: Any
    ) -> None:
        """One operator by the schema's names: CONV_2D with Conv2DOptions, and so on."""
        code = getattr(self.schema.BuiltinOperator, name)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, options + "T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self._operators.append(operator)

    def content(self, first: int, last: int, provenance: Mapping[str, str]) -> bytes:
        """The file, from the tensor ``first`` to the tensor ``last``."""
        import flatbuffers

        model = self.schema.ModelT()
        model.version = _VERSION
        model.description = "; ".join(f"{key}: {value}" for key, value in provenance.items())
        model.operatorCodes = []
        for code in self._codes:
            entry = self.schema.OperatorCodeT()
            entry.builtinCode = code
            entry.deprecatedBuiltinCode = min(code, 127)
            entry.version = 1
            model.operatorCodes.append(entry)
        graph = self.schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = np.array([first], np.int32), np.array([last], np.int32)
        model.subgraphs = [graph]
        note = self.schema.BufferT()
        note.data = np.frombuffer(json.dumps(dict(provenance)).encode(), np.uint8)
        metadata = self.schema.MetadataT()
        metadata.name, metadata.buffer = "provenance", len(self._buffers)
        model.buffers, model.metadata = [*self._buffers, note], [metadata]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
