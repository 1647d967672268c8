#!/usr/bin/env bash
# ai-edge-litert 2.3.0, x86-64: an int8 output's last bit depends on where in the tensor it stands.
#
# Expected: QUANTIZE of a tensor that holds one number nine times gives one number nine times, and
#   ADD of two constant tensors a constant one; both work element by element.
# Seen, with OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES: vectors of elements and the rest round
#   halves differently, to even and away from zero, so that 2.5 becomes 2 eight times and then 3:
#     QUANTIZE, 9 times 2.5   BUILTIN_REF      3 3 3 3 3 3 3 3 3
#                             no delegates     2 2 2 2 2 2 2 2 3
#                             XNNPACK          2 2 2 2 2 2 2 2 2
#     ADD, 33 times a sum     BUILTIN_REF      -33 at all 33
#     of exactly -33.5        no delegates     -34 at 32, -33 at the last
#                             XNNPACK          -34 at all 33
# Matters where two runtimes are compared bit by bit: that a kernel agrees on one length says nothing
# of another.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet ai-edge-litert==2.3.0 numpy==2.4.6
venv/bin/python - <<'PY'
import sys
from collections import Counter
from importlib.metadata import version

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KINDS = {
    "BUILTIN_REF": OpResolverType.BUILTIN_REF,
    "no delegates": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "XNNPACK": OpResolverType.BUILTIN,
}


def tensor(name, count, kind, scale=None, zero_point=0):
    made = schema.TensorT()
    made.name, made.shape, made.type = name, np.array([1, count], np.int32), kind
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.array([scale], np.float32)
        made.quantization.zeroPoint = np.array([zero_point], np.int64)
    return made


def file_of(operator, tensors, options=""):
    """One operator; the last tensor is its output."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    code.version = 1
    node = schema.OperatorT()
    node.opcodeIndex = 0
    node.inputs = np.arange(len(tensors) - 1, dtype=np.int32)
    node.outputs = np.array([len(tensors) - 1], np.int32)
    if options:
        node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        node.builtinOptions = getattr(schema, options + "T")()
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [node]
    graph.inputs, graph.outputs = node.inputs, node.outputs
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def told(content, kind, *values):
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=kind, num_threads=1
    )
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.set_tensor(detail["index"], np.full(detail["shape"], value, detail["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel().tolist()


INT8, FLOAT = schema.TensorType.INT8, schema.TensorType.FLOAT32
quantize = file_of("QUANTIZE", [tensor("x", 9, FLOAT), tensor("y", 9, INT8, 1.0)])
summands = [tensor("a", 33, INT8, 1 / 16), tensor("b", 33, INT8, 1 / 20, 3)]
add = file_of("ADD", [*summands, tensor("y", 33, INT8, 1 / 9, -2)], "AddOptions")
print("ai-edge-litert", version("ai-edge-litert"))
seen = {}
for name, kind in KINDS.items():
    halves, sums = told(quantize, kind, 2.5), told(add, kind, -96, 53)
    counts = ", ".join(f"{value} at {count}" for value, count in Counter(sums).items())
    print(f"{name:13} QUANTIZE: {' '.join(map(str, halves))}   ADD: {counts}; last {sums[-1]}")
    seen[name] = halves, sums
expected = {
    "BUILTIN_REF": ([3] * 9, [-33] * 33),
    "no delegates": ([2] * 8 + [3], [-34] * 32 + [-33]),
    "XNNPACK": ([2] * 9, [-34] * 33),
}
sys.exit(0 if seen == expected else "not as the head says")
PY
