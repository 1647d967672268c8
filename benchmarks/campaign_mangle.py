"""How inputs are malformed: bytes of a text, values of JSON, nodes of ONNX."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

NASTY = [
    "", " ", "0", "-0", "-1", "1", "2", "1.5", "nan", "-nan", "inf", "-inf", "1e999", "-1e999",
    "1e-400", "1e308", "0x10", "1_000", "9" * 40, "9" * 5000, "١٢", "½", "None", "null", "true",
    "True", "[]", "{}", '"', "'", "\\", "\x00", "\x1b[2J", "💥", "é" * 300, "../../etc/passwd",
    "/dev/null", "/proc/self/mem", "=1+1", "a,b", "a;b", "a\nb", "constant", "linear:0.5",
    "linear:", "table:0=1", "table:", "@", "@/nowhere", "%s%n", "-", "--", "cpu", "digits",
    "0.02@0.001", "@@", "1@", "step:0:0", "exponential:-1", "cosine:nan", "poisson", "fixed",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, -(2**63), 10**400, 0.0, -0.0, 0.5, -0.5, 1.5, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", "x", "nan", "1", "\x00", "💥", [], {}, [[]],
    [1], {"a": 1}, {"type": "gaussian"}, "é" * 1000, ["x"] * 100,
]  # fmt: skip


def mangled(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three of these: bytes flipped, put in, taken out; words replaced; lines moved."""
    for _ in range(int(rng.integers(1, 4))):
        content = _ONCE[int(rng.integers(len(_ONCE)))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Anywhere, as often as not near the beginning."""
    return int(rng.integers(len(content) + 1 if rng.random() < 0.5 else min(len(content), 200) + 1))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    if not content:
        return content
    at = min(_place(content, rng), len(content) - 1)
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.bytes(int(rng.integers(1, 20))) + content[at:]


def _delete(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + int(rng.integers(1, 200)) :]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at : at + 100] * int(rng.integers(2, 50)) + content[at:]


def _word(content: bytes, rng: np.random.Generator) -> bytes:
    words = list(re.finditer(rb"[^,\s:\"\[\]{}]+", content[:20_000]))
    if not words:
        return content
    word = words[int(rng.integers(len(words)))]
    new = NASTY[int(rng.integers(len(NASTY)))].encode()
    return content[: word.start()] + new + content[word.end() :]


def _line(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    at, to = (int(rng.integers(len(lines))) for _ in range(2))
    if rng.random() < 0.5:
        lines.insert(to, lines[at])
    else:
        lines[at], lines[to] = lines[to], lines[at]
    return b"\n".join(lines)


def _whole(content: bytes, rng: np.random.Generator) -> bytes:
    text = content.decode("latin-1")
    return [
        b"", b"\xef\xbb\xbf" + content, text.encode("utf-16"), content.replace(b"\n", b"\r\n"),
        content.replace(b"\n", b"\r"), content.replace(b",", b";"), content.replace(b",", b"\t"),
        content.replace(b"\n", b""), b"[" * 5000 + content, content[::-1], bytes(len(content)),
        content.replace(b".", b","), b'"' + content, content + b"\x00" * 10, content.upper(),
    ][int(rng.integers(15))]  # fmt: skip


_ONCE = [_flip, _insert, _delete, _cut, _repeat, _word, _word, _word, _line, _whole]


def mangled_json(data: Any, rng: np.random.Generator) -> Any:
    """A value somewhere replaced, taken out, or named otherwise."""
    data = copy.deepcopy(data)
    for _ in range(int(rng.integers(1, 4))):
        value = copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])
        at = data
        while isinstance(at, (dict, list)) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = keys[int(rng.integers(len(keys)))]
            if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.8:
                at = at[key]
                continue
            if rng.random() < 0.75:
                at[key] = value
            elif isinstance(at, dict) and rng.random() < 0.5:
                at[NASTY[int(rng.integers(len(NASTY)))]] = at.pop(key)
            else:
                del at[key]
            break
        else:
            return value
    return data


def mangled_onnx(rng: np.random.Generator) -> tuple[Any, str]:
    """A small convolutional model, one to three things in it changed, and what."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                         strides=[1, 1], dilations=[1, 1], group=1),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "v", "d"], ["y"], transB=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [constant("w", 2, 1, 3, 3), constant("b", 2), constant("v", 3, 32), constant("d", 3)],
    )  # fmt: skip
    model = helper.make_model(graph)
    told = [_change(model.graph, rng) for _ in range(int(rng.integers(1, 4)))]
    return model, ", ".join(told)


def _change(graph: Any, rng: np.random.Generator) -> str:
    from onnx import numpy_helper

    def any_of(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    what = int(rng.integers(9))
    if what >= 7 or not graph.node:
        what = 6
    node = any_of(graph.node) if graph.node else None
    if what == 0:
        node.op_type = any_of(["Relu", "Conv", "Gemm", "Reshape", "Add", "", "💥", "MatMul",
                               "Softmax", "AveragePool", "Clip", "Transpose"])  # fmt: skip
        return f"another operator {node.op_type!r}"
    if what == 1 and node.input:
        at = int(rng.integers(len(node.input)))
        node.input[at] = any_of(["x", "w", "y", "", "nowhere", "p"])
        return f"{node.op_type} reads {node.input[at]!r}"
    if what == 2 and node.input:
        node.input.pop()
        return f"{node.op_type} reads less"
    if what == 3 and node.attribute:
        attribute = any_of(node.attribute)
        new = [any_of([0, -1, 1, 2, 3, 10**9, 2**62]) for _ in range(int(rng.integers(0, 5)))]
        if attribute.ints:
            del attribute.ints[:]
            attribute.ints.extend(new)
        else:
            attribute.i = any_of([0, -1, 2, 10**9, 2**62])
        return f"{node.op_type}.{attribute.name} = {new or attribute.i}"
    if what == 4:
        del node.output[:]
        return f"{node.op_type} gives nothing"
    if what == 5 and len(graph.node) > 1:
        graph.node.remove(node)
        return f"no {node.op_type}"
    tensor = any_of(graph.initializer)
    shape = any_of([(), (0,), (3,), (2, 1, 3, 3), (3, 32), (32, 3), (1, 1, 1, 1, 1), (2, 0, 3, 3)])
    kind = any_of([np.float32, np.float64, np.int64, np.bool_])
    filled = np.full(shape, any_of([0.0, 1.0, np.nan, np.inf]) if kind in (np.float32, np.float64)
                     else 1, kind)  # fmt: skip
    name = tensor.name
    if rng.random() < 0.3:
        dims = graph.input[0].type.tensor_type.shape.dim
        dim = any_of(dims) if dims else None
        if dim is not None:
            dim.dim_value = any_of([0, -1, 1, 2, 7, 2**40])
            return f"a dimension of {dim.dim_value}"
    tensor.CopyFrom(numpy_helper.from_array(filled, name))
    return f"{name} of {shape} {kind.__name__}"
