"""Small frozen models in files of every kind, whole and hostile."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

SHAPE = (1, 8, 8)


def small_net(outputs: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, outputs)
        )
        net[1].running_mean.uniform_(-0.1, 0.1)
    return net.eval()


def exported(path, net, batch=None):
    """By torch.export.save, for any number of rows or for ``batch`` of them."""
    rows = torch.rand(batch or 4, *SHAPE)
    sizes = None if batch else ({0: torch.export.Dim("rows")},)
    torch.export.save(torch.export.export(net, (rows,), dynamic_shapes=sizes), path)
    return path


class Scripted(nn.Module):
    """What is scripted needs its source."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def onnx_model(nodes, constants=(), outputs=("y",), rows="rows", opset=17, shape=SHAPE):
    """Of nodes from ``x`` to ``outputs``."""
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, *shape])],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def onnx_net(**changes):
    """Flatten and one layer of six values, and the same in torch."""
    weight = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    nodes = [("Flatten", ["x"], ["f"]), ("MatMul", ["f", "w"], ["y"])]
    model = onnx_model(nodes, [("w", weight)], **changes)
    return model, lambda x: x.flatten(1) @ torch.from_numpy(weight)


def saved(path, model: onnx.ModelProto):
    path.write_bytes(model.SerializeToString())
    return path


def changed(path, edit):
    """The archive again, each member below its folder as ``edit(member, content)`` has it."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, edit(name.partition("/")[2], content))
    return path


def graph_changed(path, edit):
    """The same for the graph of an exported program, as the dictionary it is."""

    def one(member, content):
        if member != "models/model.json":
            return content
        graph = json.loads(content)
        edit(graph)
        return json.dumps(graph).encode()

    return changed(path, one)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def bomb(mark) -> bytes:
    return pickle.dumps(Bomb(mark))
