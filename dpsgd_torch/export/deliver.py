"""From a graph to files: integers → files → statement → check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.archive import zipped
from dpsgd_torch.export.calibration.passes import calibration_of
from dpsgd_torch.export.check import Comparison, compare
from dpsgd_torch.export.compiler import compile_model
from dpsgd_torch.export.cost import Cost, measure_cost
from dpsgd_torch.export.cost_page import cost_page
from dpsgd_torch.export.cost_picture import cost_svg
from dpsgd_torch.export.cost_table import table
from dpsgd_torch.export.footprint import footprint
from dpsgd_torch.export.program import Program
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.target import CALIBRATIONS, Target
from dpsgd_torch.export.to_onnx import answers, refuse_difference
from dpsgd_torch.storage.run_folder import write_durably

_STATEMENT = "statement.txt"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What is to be made and where, from which inputs, and what is said of it.

    ``inputs`` (count, *input_shape) give the ranges; ``check_with`` are those to compare with.
    ``name``: of what is made; none: the folder's. ``cost``: measure flash, RAM and instructions by
    layer, and write them beside the files.
    """

    target: Target
    folder: Path
    inputs: torch.Tensor
    ranges_from: str
    statement: Callable[[list[str]], str]
    name: str = ""
    calibration: str = "plain"
    check_with: torch.Tensor | None = None
    say: Callable[[str], None] = lambda _: None
    cost: bool = False

    def __post_init__(self) -> None:
        if self.cost and not self.target.kind.holds_c:
            raise ExportError(
                f"cost = True: of {self.target.to} nothing can be measured; use --to c or arduino"
            )


@dataclass(frozen=True)
class Exported:
    """The files that were written, and what comparing them showed."""

    folder: Path
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    cost: Cost | None = None
    """By layer, where that was asked for."""

    @property
    def differences(self) -> list[Comparison]:
        """Those where something had to be equal and was not."""
        return [each for each in self.comparisons if each.holds is False]


def deliver(subject: Subject, delivery: Delivery) -> Exported:
    """Write the files and their statement; compare them where that was asked for."""
    target, folder, say = delivery.target, delivery.folder, delivery.say
    program = _integers(subject, delivery) if target.in_integers else None
    name = delivery.name or folder.absolute().name
    files = target.kind.files(subject, program, name)
    archive = target.kind.archive(name)
    cost = measure_cost(program) if program and delivery.cost else None
    beside = _pictures(program, cost) if program and cost else {}
    names = [*([f"{archive}.zip"] if archive else files), *beside]
    statement = {_STATEMENT: delivery.statement(names).encode()}
    if archive:  # the statement goes where the files go
        files = {names[0]: zipped({**files, **statement}, archive)}
    files = {**files, **beside}
    write_files(folder, {**files, **statement})
    for each in names:
        say(f"{folder / each}: {len(files[each]):,} bytes")
    if program and target.kind.holds_c:
        say(f"on a Cortex-M4: {footprint(program)}")
    for line in table(cost) if cost else ():
        say(line)
    comparisons = []
    if delivery.check_with is not None:
        for each in _checked(subject, program, delivery.check_with, say):
            say(str(each))
            comparisons.append(each)
    return Exported(folder, tuple(names), tuple(comparisons), cost)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """All of them, in a folder made where it is missing."""
    try:
        for parent in {(folder / name).parent for name in files}:
            parent.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_durably(folder / name, content)
    except OSError as error:
        raise ExportError(
            f"out = {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _integers(subject: Subject, delivery: Delivery) -> Program:
    program = compile_model(
        subject.graph,
        input_range=subject.declared.input_range,
        public_inputs=delivery.inputs.numpy(),
        labels=subject.declared.labels,
        calibration=calibration_of(delivery.calibration),
    )
    told = {**subject.provenance, "ranges_from": delivery.ranges_from}
    if delivery.calibration != "plain":
        told["calibration"] = CALIBRATIONS[delivery.calibration]
    return replace(program, provenance=told)


def _pictures(program: Program, cost: Cost) -> dict[str, bytes]:
    told = program.provenance
    return {
        "cost.svg": cost_svg(cost, told).encode(),
        "cost.html": cost_page(cost, told).encode(),
    }


def _checked(
    subject: Subject, program: Program | None, inputs: torch.Tensor, say: Callable[[str], None]
) -> Iterator[Comparison]:
    """The comparisons, each as soon as it is made."""
    if subject.model is None:
        floats, expected = "onnxruntime", answers(subject.graph, inputs)
        say(f"checked with {len(inputs)} inputs, against onnxruntime")
    else:
        with torch.no_grad():
            floats, expected = "torch", subject.model(inputs).numpy()
        off = refuse_difference(subject.graph, subject.model, inputs)
        say(f"checked with {len(inputs)} inputs; onnxruntime is within {off:.1e} of float64")
    if program is not None:
        yield from compare(program, inputs.numpy(), _flat(expected), floats=floats)


def _flat(answers: NDArray[np.float32]) -> NDArray[np.float32]:
    return answers.reshape(len(answers), -1)
