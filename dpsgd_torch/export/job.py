"""The whole export on one page: run → ONNX → integers → files → statement → check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.check import compare
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.footprint import footprint
from dpsgd_torch.export.from_onnx import from_onnx
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.source import (
    COVERED,
    NOT_COVERED,
    Source,
    float_outputs,
    load_data,
    read_run,
)
from dpsgd_torch.export.statement import exported, promise_of
from dpsgd_torch.export.to_arduino import to_arduino
from dpsgd_torch.export.to_c import to_c
from dpsgd_torch.export.to_header import to_header
from dpsgd_torch.export.to_onnx import refuse_difference, to_onnx
from dpsgd_torch.export.to_tflite import to_float_tflite, to_int8_tflite
from dpsgd_torch.tasks.registry import public_inputs
from dpsgd_torch.training.run_folder import write_durably

_MADE_UP = 400  # inputs, from which ranges are read


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command line asks for."""

    run: Path
    to: str
    int8: bool | None
    check: bool
    calibrate_on_private_data: bool
    data_dir: Path | None
    out: Path | None
    inputs: int

    def __post_init__(self) -> None:
        if self.inputs < 1:
            raise ExportError(f"inputs = {self.inputs}: must be at least 1")
        if self.int8 is False and self.to in ("c", "arduino"):
            raise ExportError(f"int8 = False: {self.to} is in integers only; use --to tflite")
        if self.int8 and self.to == "onnx":
            raise ExportError("int8 = True: onnx is in float32 only; use --to tflite --int8")
        if self.calibrate_on_private_data and not self.in_integers:
            raise ExportError(
                "calibrate_on_private_data = True: float32 files have no ranges; drop it"
            )

    @property
    def in_integers(self) -> bool:
        if self.int8 is None:
            return self.to in ("header", "c", "arduino")
        return self.int8


@dataclass(frozen=True)
class _Work:
    """What every target needs; ``program`` where it is in integers."""

    source: Source
    model: onnx.ModelProto
    program: Program | None


def export(order: Order, say: Callable[[str], None]) -> bool:
    """Write the files; False if they were checked and something differs."""
    source = read_run(order.run)
    made_up = public_inputs(source.config)(_MADE_UP)
    held_out = _held_out(source, order, made_up) if order.check else None
    model = _model(source, made_up, say)
    program = _integers(source, model, order, made_up) if order.in_integers else None
    work = _Work(source, model, program)
    folder = order.out or order.run / "export" / order.to
    if order.to == "arduino":
        folder = order.out or folder / source.name
    files = _files(work, order, folder.name)
    _write(folder, {**files, "statement.txt": _statement(source, order, list(files))})
    for name, content in files.items():
        say(f"{folder / name}: {len(content):,} bytes")
    if program and order.to in ("c", "arduino"):
        say(f"on a Cortex-M4: {footprint(program)}")
    return True if held_out is None else _check(work, held_out, say)


def _model(source: Source, made_up: torch.Tensor, say: Callable[[str], None]) -> onnx.ModelProto:
    """The run's model.onnx, written once and kept while the weights are the same."""
    kept, some = source.folder.path / "export" / "onnx" / "model.onnx", made_up[:32]
    if kept.is_file() and (found := kept_model(kept.read_bytes(), source, some)):
        return found
    model = to_onnx(source.model, source.input_shape, source.provenance)
    off = refuse_difference(model, source.model, some)
    say(f"onnx: onnxruntime is within {off:.1e} of the model in float64")
    _write(kept.parent, {kept.name: model.SerializeToString()})
    return model


def kept_model(content: bytes, source: Source, some: torch.Tensor) -> onnx.ModelProto | None:
    """The model that an earlier export left, if it is the run's: by its weights, not by its word.

    ``some`` are inputs for which it must answer what the run's model answers.
    """
    try:
        model = onnx.load_from_string(content)
        told = {entry.key: entry.value for entry in model.metadata_props}
        held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        for name, tensor in source.model.state_dict().items():
            if not np.array_equal(held[name], tensor.numpy()):
                return None
        onnx.checker.check_model(model)
        refuse_difference(model, source.model, some)
    except Exception:  # whatever a damaged file makes protobuf and onnxruntime raise
        return None
    return model if told == source.provenance else None


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """All of them, in a folder made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_durably(folder / name, content)
    except OSError as error:
        raise ExportError(
            f"out = {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _integers(
    source: Source, model: onnx.ModelProto, order: Order, made_up: torch.Tensor
) -> Program:
    inputs = made_up.numpy()
    if order.calibrate_on_private_data:
        inputs = load_data(source, order.data_dir).train[0].numpy()
    program = compile_model(
        model, input_range=source.input_range, public_inputs=inputs, labels=source.labels
    )
    told = NOT_COVERED if order.calibrate_on_private_data else COVERED
    return replace(program, provenance={**source.provenance, "ranges_from": told})


def _files(work: _Work, order: Order, name: str) -> dict[str, bytes]:
    """File name → content."""
    source, program = work.source, work.program
    if order.to == "onnx":
        return {"model.onnx": work.model.SerializeToString()}
    if order.to in ("tflite", "header"):
        flat = to_int8_tflite(program) if program else _float_tflite(work)
        if order.to == "tflite":
            return {"model_int8.tflite" if program else "model.tflite": flat}
        return {
            "model.h": to_header(
                flat, program.provenance if program else source.provenance
            ).encode()
        }
    assert program is not None
    texts = to_c(program)
    if order.to == "arduino":
        texts = to_arduino(program, name, output=source.output, input_range=source.input_range)
    return {name: text.encode() for name, text in texts.items()}


def _float_tflite(work: _Work) -> bytes:
    return to_float_tflite(from_onnx(work.model), work.source.provenance)


def _statement(source: Source, order: Order, names: list[str]) -> bytes:
    more = exported(
        names,
        promised=promise_of(source.config),
        integers=order.in_integers,
        private_ranges=order.calibrate_on_private_data,
    )
    return (source.statement + more).encode()


def _check(work: _Work, inputs: torch.Tensor, say: Callable[[str], None]) -> bool:
    expected = float_outputs(work.source, inputs)
    off = refuse_difference(work.model, work.source.model, inputs)
    say(f"checked with {len(inputs)} inputs; onnxruntime is within {off:.1e} of float64")
    if work.program is None:
        return True
    equal = True
    for comparison in compare(work.program, inputs.numpy(), expected.numpy()):
        say(str(comparison))
        equal &= comparison.holds is not False
    return equal


def _held_out(source: Source, order: Order, made_up: torch.Tensor) -> torch.Tensor:
    """Test inputs, and made-up ones where there are not enough."""
    task = load_data(source, order.data_dir)
    test = made_up[:0] if task.test is None else task.test[0][: order.inputs]
    return torch.cat([test, made_up[: order.inputs - len(test)]])
