"""Files of torch.export.save, opened without any pickle that they hold.

``torch.export.load`` is not for files of others: it unpickles example inputs, and weights that ask
for it, with ``weights_only=False`` where ``True`` fails, evaluates sizes and guards as Python, and
loads compiled code. So what it is given is a copy: the graph, of torch's own operators alone and
without guards, and weights as plain numbers. All else is refused, or left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dpsgd_torch.errors import ConfigError, shown, told
from dpsgd_torch.features.model_files.archives import archive_of
from dpsgd_torch.features.model_files.program import Program, only, refused

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_(int|max|min|float)|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
)
_FILES = re.compile(r"torch\.ops\.aten\.(save|from_file)\b")
_SIZE = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, \w+=True)*\)|[su]\d+|Integer\(-?\d+\)"
    r"|(?:Add|Mul|FloorDiv|Mod|PythonMod|CleanDiv|CeilDiv|Max|Min)(?=\()|\d+|\*(?!\*)|[-+/(), ])*"
)
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict"}
_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)


def read_exported(name: str, held: Mapping[str, bytes]) -> Program:
    """The model of a file that torch.export.save left.

    Raises:
        ConfigError: it holds a pickle, compiled code, or operators that are none of torch's; or
            torch cannot open it.
    """
    try:
        program = torch.export.load(archive_of(_plain(name, held)))
        module = program.module()
        nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        taken = nodes[only(name, "input", list(program.graph_signature.user_inputs))]
        sizes = tuple(taken.meta["val"].shape)
    except ConfigError:
        raise
    except Exception as error:  # whatever a damaged archive makes torch raise
        raise refused(name, f"torch cannot open it ({told(error)}); export it again") from None
    return Program(module, tuple(each if isinstance(each, int) else None for each in sizes))


def _plain(name: str, held: Mapping[str, bytes]) -> dict[str, bytes]:
    """What is plain of it: the graph and numbers; nothing for example inputs, which are pickled."""
    kept = {_SAMPLES: b""}
    for path, content in held.items():
        if path == _MODEL:
            kept[path] = json.dumps(_graph(name, json.loads(content))).encode()
        elif _PLAIN.fullmatch(path):
            tables = json.loads(content)["config"].values() if path.endswith(".json") else ()
            if any(each.get("use_pickle") for each in tables):
                raise refused(name, f"holds pickled tensors ({path}); export it without")
            kept[path] = content
        elif path != _SAMPLES:
            raise refused(name, f"holds {shown(path)}, which may run when read; export it anew")
    return kept


def _graph(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """The graph, looked through, without what is for debugging or checked by evaluating it."""
    model["guards_code"] = []
    model["graph_module"]["metadata"] = {}
    if model["graph_module"]["graph"]["custom_obj_values"]:
        raise refused(name, "holds objects that are no tensors; export it without")
    for node in model["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
        target = node["target"]
        if not _OPERATOR.fullmatch(target) or _FILES.match(target):
            raise refused(
                name,
                f"operator = {shown(target)}: is none of those taken (torch.ops.aten); export a "
                "model of torch's own layers in eval mode, without torch.no_grad inside",
            )
    for key, text in _texts(model):
        if key == "expr_str" and not _SIZE.fullmatch(text):
            raise refused(name, f"size = {shown(text)}: is no sum or product of sizes; export it "
                          "for rows of one shape")  # fmt: skip
        if key in ("in_spec", "out_spec") and not _containers(json.loads(text)) <= _CONTAINERS:
            raise refused(name, "takes or gives other than tensors; export it with one of each")
    return model


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts below, each with the name it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)


def _containers(value: Any) -> set[str]:
    """The types that a tree of containers names."""
    if isinstance(value, list):
        return set().union(*map(_containers, value))
    if isinstance(value, dict):
        own = {str(value["type"])} if value.get("type") is not None else set()
        return own | _containers(value["children_spec"])
    return set()
