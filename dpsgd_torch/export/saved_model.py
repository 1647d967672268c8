"""A model of one's own, as ``Trainer.save`` leaves it for the export: a graph, and what it means.

Weights alone say nothing of the layers between them, and a class that was pickled runs whatever
the file says. An ONNX graph is data: it holds the layers and the weights, and is read as such. Its
digest and that of the weights stand in task.json with what the owner declared; nothing in either
is computed from the records but the weights, which ε covers. Beside a quantisation-aware model
lie the made-up inputs that its ranges were taken from, so that a board rounds as it was trained.
"""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save as save_tensors
from torch import nn

from accountant import Relation
from dpsgd_torch.errors import ExportError, RunError
from dpsgd_torch.export.declared import Declared as Declared
from dpsgd_torch.export.declared import is_plain
from dpsgd_torch.export.module_graph import module_graph
from dpsgd_torch.export.promise import Promise, Promised, privacy_told
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.synthetic import synthetic_inputs
from dpsgd_torch.quantization import QuantizationAware
from dpsgd_torch.storage.run_folder import RunFolder, write_durably
from dpsgd_torch.storage.sealed import tensors_from_bytes
from dpsgd_torch.version import __version__

GRAPH = "graph.onnx"
_OF_RUNS = ("config.json", "statement.txt", "private/plan.json")
_TASK, _WEIGHTS, _RANGED_BY = "task.json", "model.safetensors", "made_up_inputs.safetensors"
_AGAIN = "save it again: trainer.save(path, input_range=(low, high))"


def is_saved_model(path: Path) -> bool:
    """Whether a folder is what ``Trainer.save`` leaves, with what an export needs or without.

    What a run by presets leaves holds these others.
    """
    return not any((path / name).exists() for name in _OF_RUNS)


def write_saved_model(
    folder: RunFolder, model: nn.Module, declared: Declared, unit: str | None
) -> None:
    """The graph beside the weights that are in the folder, then task.json.

    Args:
        folder: of which model.safetensors is already written.
        model: what was trained; left as it is.
        declared: what its numbers mean.
        unit: of privacy; None where the training was not private.

    Raises:
        ExportError: it was trained to be rounded in another input range than is declared.
    """
    ranged_by: dict[str, str] = {}
    if isinstance(model, QuantizationAware):
        if tuple(model.input_range) != declared.input_range:
            raise ExportError(
                f"input_range = {declared.input_range}: the model was trained to be rounded in "
                f"{tuple(model.input_range)}; declare that, or save its twin, model.plain"
            )
        content = save_tensors({"inputs": model.made_up_inputs.cpu().float().contiguous()})
        write_durably(folder.path / _RANGED_BY, content)
        ranged_by = {"ranged_by_sha256": _sha256(content)}
    inputs = synthetic_inputs(32, declared.input_shape, declared.input_range)
    graph = module_graph(model, declared, {}, inputs)[1].SerializeToString()
    write_durably(folder.path / GRAPH, graph)
    folder.write_sealed(
        _TASK,
        {
            **declared.to_json(),
            "graph_sha256": _sha256(graph),
            "weights_sha256": _sha256((folder.path / _WEIGHTS).read_bytes()),
            "unit": unit,
            **ranged_by,
        },
    )


@dataclass(frozen=True)
class SavedModel:
    """What was read and found to be of one training; ``statement`` are words on its ε.

    ``ranged_by``: the inputs that a quantisation-aware model's ranges were taken from.
    """

    subject: Subject
    promised: Promised
    statement: str
    ranged_by: torch.Tensor | None = None


def read_saved_model(path: Path) -> SavedModel:
    """The model in a folder.

    Raises:
        RunError: no such folder, no graph in it, or files that do not fit together.
        LedgerError: its ledger costs more than privacy.json says.
    """
    folder = RunFolder(path)
    _refuse_incomplete(folder)
    facts = folder.read_sealed(_TASK)
    try:
        declared = Declared.from_json(facts)
    except ExportError as error:
        raise RunError(f"{path / _TASK}: {error}") from error
    weights = _of_digest(folder, _WEIGHTS, facts.get("weights_sha256"))
    graph = _graph(folder, declared, facts, weights)
    unit = facts.get("unit")
    if unit is not None and not is_plain(unit):
        raise RunError(f"{path / _TASK}: unit = {unit!r}: is no name; {_AGAIN}")
    relation = None if unit is None else Relation.ADD_OR_REMOVE_ONE
    promise = Promise(_TASK, relation, unit or "", again="trainer.save", always_a_ledger=True)
    told = privacy_told(folder.read_json("privacy.json"), promise, path)
    told |= {
        "run": path.resolve().name.encode("utf-8", "replace").decode(),
        "weights_sha256": _sha256(weights),
        "version": f"dpsgd_torch {__version__}",
    }
    for key, value in told.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    subject = Subject(graph, None, declared, told)
    return SavedModel(subject, promise.to, _words(told), _ranged_by(folder, declared, facts))


def _refuse_incomplete(folder: RunFolder) -> None:
    path = folder.path
    if not path.is_dir():
        raise RunError(f"run = {path}: there is no such folder; name that of a run")
    folder.refuse_links()
    if not (path / _WEIGHTS).is_file() and (folder.private / "contract.json").exists():
        raise RunError(
            f"{path}: has no {_WEIGHTS}: its training was not saved; "
            "Trainer(…same arguments…).resume().fit().save(path, input_range=(low, high))"
        )
    if not (path / _WEIGHTS).is_file():
        raise RunError(
            f"{path}: has no {_WEIGHTS}, and neither task.json nor config.json; name the folder "
            "that python -m dpsgd_torch.train or trainer.save left"
        )
    missing = [name for name in (_TASK, GRAPH) if not (path / name).is_file()]
    if len(missing) == 2:
        raise RunError(
            f"{path}: has no task.json: input_range was not given when it was saved, so nobody "
            f"knows what its inputs mean; {_AGAIN}"
        )
    if missing:
        raise RunError(f"{path}: has no {missing[0]}; restore it, or {_AGAIN}")


def _of_digest(folder: RunFolder, name: str, digest: object) -> bytes:
    try:
        content = (folder.path / name).read_bytes()
    except OSError as error:
        raise RunError(f"{folder.path / name}: cannot be read ({error.strerror})") from error
    if _sha256(content) != digest:
        raise RunError(
            f"{folder.path / name}: is not what task.json was written for; restore it, or {_AGAIN}"
        )
    return content


def _graph(
    folder: RunFolder, declared: Declared, facts: dict[str, Any], weights: bytes
) -> onnx.ModelProto:
    """The graph, if it is one, of that shape, and holds those weights and no file's beside it."""
    path = folder.path / GRAPH
    content = _of_digest(folder, GRAPH, facts.get("graph_sha256"))
    tensors = tensors_from_bytes(weights, folder.path / _WEIGHTS)
    try:
        model = onnx.load_from_string(content)
        held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        onnx.checker.check_model(model, full_check=True)
        (entry,) = model.graph.input
        dims = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    except Exception as error:  # whatever a strange file makes protobuf and onnx raise
        raise RunError(f"{path}: is no graph ({type(error).__name__}); {_AGAIN}") from error
    if dims != [1, *declared.input_shape]:
        raise RunError(f"{path}: takes {dims}, task.json says {declared.input_shape}; {_AGAIN}")
    del model.metadata_props[:]
    for name in held.keys() & tensors.keys():
        if not np.array_equal(held[name], tensors[name].numpy().astype(held[name].dtype)):
            raise RunError(f"{path}: its {name} is not that of {_WEIGHTS}; {_AGAIN}")
    return model


def _ranged_by(folder: RunFolder, declared: Declared, facts: dict[str, Any]) -> torch.Tensor | None:
    if "ranged_by_sha256" not in facts:
        return None
    path = folder.path / _RANGED_BY
    content = _of_digest(folder, _RANGED_BY, facts["ranged_by_sha256"])
    inputs = tensors_from_bytes(content, path).get("inputs")
    shape = None if inputs is None or inputs.dtype != torch.float32 else tuple(inputs.shape)
    if inputs is None or not shape or shape[1:] != declared.input_shape or not shape[0]:
        raise RunError(f"{path}: holds no inputs of shape {declared.input_shape}; {_AGAIN}")
    if not inputs.isfinite().all():
        raise RunError(f"{path}: holds inputs that are no numbers; {_AGAIN}")
    return inputs


def _words(told: dict[str, str]) -> str:
    """The statement: no configuration tells more of such a training."""
    if "delta" not in told:
        return f"A model of one's own. Privacy: {told['epsilon']}.\n"
    promise = (
        f"Guarantee: the weights are differentially private, epsilon {told['epsilon']} at "
        f"δ = {told['delta']} ({told['relation']}), as the ledger's charges cost."
    )
    rest = (
        "Not covered: whatever was chosen by looking at the records (layers and what stands in "
        "their code, hyper-parameters, the declared input range and labels), losses shown while "
        "it trained, other runs on the same data, and who knows the seed."
    )
    paragraphs = ["A model of one's own, trained by dpsgd_torch.", promise, rest]
    return "\n\n".join(textwrap.fill(words, 88) for words in paragraphs) + "\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
