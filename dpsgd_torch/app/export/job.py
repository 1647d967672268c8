"""The whole export of a folder on one page: run, or saved model → graph → files → check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from dpsgd_torch.app.export.board import keep
from dpsgd_torch.app.export.source import NOT_COVERED, Source, load_data, read_run
from dpsgd_torch.app.stored_config import read_config
from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.api import FROM_GIVEN, FROM_MADE_UP, MADE_UP
from dpsgd_torch.export.declared import Declared
from dpsgd_torch.export.deliver import Delivery, deliver, write_files
from dpsgd_torch.export.frontend.stream import Stream
from dpsgd_torch.export.saved_model import is_saved_model, read_saved_model
from dpsgd_torch.export.statement import exported
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.synthetic import synthetic_inputs
from dpsgd_torch.export.target import Target
from dpsgd_torch.export.targets.package import library_name
from dpsgd_torch.export.to_onnx import refuse_difference, to_onnx
from dpsgd_torch.quantization import MADE_UP as TRAINED_BY
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import kind_of, public_inputs


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
    cost: bool = False
    calibration: str | None = None
    """None: the task's own."""
    every: int | None = None

    def __post_init__(self) -> None:
        if self.inputs < 1:
            raise ExportError(f"inputs = {self.inputs}: must be at least 1")
        if self.every is not None and (self.to != "arduino" or self.every < 1):
            raise ExportError(
                f"every = {self.every}: must be at least 1, of a sketch; drop it, or use --to "
                "arduino"
            )
        in_integers = self.target.in_integers
        if self.calibrate_on_private_data and not in_integers:
            raise ExportError(
                "calibrate_on_private_data = True: float32 files have no ranges; drop it"
            )
        if self.calibration not in (None, "plain") and not in_integers:
            raise ExportError(
                f"calibration = {self.calibration}: float32 files are not calibrated; drop it"
            )
        if self.calibration not in (None, "plain") and self.calibrate_on_private_data:
            raise ExportError(
                f"calibration = {self.calibration}: is for inputs that are nobody's; drop it, or "
                "--calibrate-on-private-data"
            )

    @property
    def target(self) -> Target:
        return Target(self.to, self.int8)

    def name(self, preset: str) -> str:
        """Of what is made: that of the folder to write to, or a library its run's."""
        if self.out or not self.target.kind.library:
            return self.folder(preset).absolute().name
        return library_name(self.run.resolve().name)

    def folder(self, preset: str) -> Path:
        """Where to; a sketch is called ``preset``, a library like its run."""
        if self.out:
            return self.out
        kind, there = self.target.kind, self.run / "export" / self.to
        if not kind.own_folder:
            return there
        return there / (library_name(self.run.resolve().name) if kind.library else preset)


def export(order: Order, say: Callable[[str], None]) -> bool:
    """Write the files; False if they were checked and something differs."""
    saved = is_saved_model(order.run)
    subject, delivery = (_of_saved_model if saved else _of_run)(order, say)
    done = deliver(subject, delivery)
    if done.cost and not (saved or order.calibrate_on_private_data):
        told = {**subject.provenance, "ranges_from": delivery.ranges_from}
        folder = RunFolder(order.run)
        if keep(folder, read_config(folder), done.cost, told):
            say(f"{order.run / 'report.html'}: has this now, under On a board")
    return not done.differences


def _of_saved_model(order: Order, say: Callable[[str], None]) -> tuple[Subject, Delivery]:
    for name, given in (
        ("data_dir", order.data_dir),
        ("calibrate_on_private_data", order.calibrate_on_private_data),
    ):
        if given:
            raise ExportError(
                f"{name} = {given}: {order.run} holds a model of your own, whose data only you "
                "have; drop it, or call dpsgd_torch.export.export_model with public_inputs"
            )
    if order.every is not None:
        raise ExportError(
            f"every = {order.every}: {order.run} holds a model of your own, whose front end is not "
            "known; drop it, or call dpsgd_torch.export.to_arduino.to_arduino with a stream"
        )
    saved = read_saved_model(order.run)
    declared = saved.subject.declared
    given = saved.ranged_by is not None
    made_up = synthetic_inputs(MADE_UP, declared.input_shape, declared.input_range)
    checked = synthetic_inputs(order.inputs, declared.input_shape, declared.input_range)

    def statement(names: list[str]) -> str:
        return saved.statement + exported(
            names,
            promised=saved.promised,
            integers=order.target.in_integers,
            given_ranges=given,
        )

    return saved.subject, Delivery(
        target=order.target,
        folder=order.folder("model"),
        name=order.name("model"),
        inputs=made_up if saved.ranged_by is None else saved.ranged_by,
        ranges_from=FROM_GIVEN if given else FROM_MADE_UP,
        statement=statement,
        calibration=order.calibration or "plain",
        check_with=checked if order.check else None,
        say=say,
        cost=order.cost,
    )


def _calibration(source: Source, order: Order) -> str:
    """As asked, or the task's own; plain where the weights know their ranges, or none are made."""
    given = source.config.qat or order.calibrate_on_private_data or not order.target.in_integers
    return order.calibration or ("plain" if given else kind_of(source.config.dataset).calibration)


def _of_run(order: Order, say: Callable[[str], None]) -> tuple[Subject, Delivery]:
    source = read_run(order.run)
    made_up = public_inputs(source.config)(MADE_UP)
    held_out = _held_out(source, order, made_up) if order.check else None
    declared = Declared(source.input_shape, source.input_range, source.labels, source.output)
    graph, stream = _graph(source, made_up, say), _stream(source, order)
    subject = Subject(graph, source.model, declared, source.provenance, stream)
    private = order.calibrate_on_private_data
    # ranges as the weights were trained with
    ranged_by = public_inputs(source.config)(TRAINED_BY) if source.config.qat else made_up

    def statement(names: list[str]) -> str:
        return source.statement + exported(
            names,
            promised=source.promised,
            integers=order.target.in_integers,
            private_ranges=private,
        )

    return subject, Delivery(
        target=order.target,
        folder=order.folder(source.name),
        name=order.name(source.name),
        inputs=load_data(source, order.data_dir).train[0] if private else ranged_by,
        ranges_from=NOT_COVERED if private else FROM_MADE_UP,
        statement=statement,
        calibration=_calibration(source, order),
        check_with=held_out,
        say=say,
        cost=order.cost,
    )


def _stream(source: Source, order: Order) -> Stream | None:
    """Of sound through the task's front end, else of motion, where one was asked for."""
    if order.every is None:
        return None
    frontend = kind_of(source.config.dataset).frontend(source.config.task)
    if frontend is None:
        return Stream(every=order.every, channels=6)
    return Stream(every=order.every, frontend=frontend, copies=source.output == "values")


def _graph(source: Source, made_up: torch.Tensor, say: Callable[[str], None]) -> onnx.ModelProto:
    """The run's model.onnx, written once and kept while the weights are the same."""
    kept, some = source.folder.path / "export" / "onnx" / "model.onnx", made_up[:32]
    if kept.is_file() and (found := kept_model(kept.read_bytes(), source, some)):
        return found
    model = to_onnx(source.model, source.input_shape, source.provenance)
    off = refuse_difference(model, source.model, some)
    say(f"onnx: onnxruntime is within {off:.1e} of the model in float64")
    write_files(kept.parent, {kept.name: model.SerializeToString()})
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


def _held_out(source: Source, order: Order, made_up: torch.Tensor) -> torch.Tensor:
    """Test inputs, and made-up ones where there are not enough."""
    task = load_data(source, order.data_dir)
    test = made_up[:0] if task.test is None else task.test[0][: order.inputs]
    return torch.cat([test, made_up[: order.inputs - len(test)]])
