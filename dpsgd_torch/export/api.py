"""A model to files that other runtimes and microcontrollers take, whoever trained it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from dpsgd_torch.errors import ExportError, shown
from dpsgd_torch.export.declared import Declared, is_plain
from dpsgd_torch.export.deliver import Delivery, deliver
from dpsgd_torch.export.deliver import Exported as Exported
from dpsgd_torch.export.module_graph import module_graph
from dpsgd_torch.export.statement import exported
from dpsgd_torch.export.subject import Subject
from dpsgd_torch.export.synthetic import synthetic_inputs
from dpsgd_torch.export.target import Target
from dpsgd_torch.quantization import QuantizationAware

MADE_UP = 400  # inputs, from which ranges are read
FROM_MADE_UP = "the declared input range, and inputs made up without the data"
FROM_GIVEN = "the declared input range, and inputs that were given as public"
_UNSTATED = {"epsilon": "not stated: no provenance was given"}


def export_model(
    model: nn.Module,
    *,
    input_shape: Sequence[int],
    input_range: tuple[float, float],
    to: str = "c",
    out: str | os.PathLike[str],
    labels: Sequence[str] = (),
    output: str = "logits",
    provenance: Mapping[str, str] | None = None,
    int8: bool | None = None,
    public_inputs: torch.Tensor | None = None,
    calibration: str = "plain",
    check: bool = False,
    cost: bool = False,
) -> Exported:
    """Export a trained model: as C, alone or packed for a build system, TensorFlow Lite or ONNX.

    Integers (int8) are scaled by the declared input range, carried through the weights, and by
    inputs made up from shape and range: no record is looked at. The files hold what the weights
    hold, and ε covers them as it covers these.

    Args:
        model: any module with one input and one output; a copy of it in evaluation mode is
            exported, of a quantisation-aware one the module it is the twin of, with its ranges. To
            C and TensorFlow Lite goes a graph of the operators that have integers, to ONNX whatever
            torch can export.
        input_shape: of one example, without the batch.
        input_range: (low, high) between which every input value lies; declared, not measured on
            private records.
        to: "c", "tflite", "header" or "onnx"; C in a package: "arduino", "arduino-library",
            "platformio", "zephyr", "esp-idf" or "cmake".
        out: the folder to write to, after which sketch and library are called; made where it is
            missing.
        labels: names of the outputs, in order.
        output: what the outputs are: "logits", "probabilities" or "values".
        provenance: lines that every file carries, as key → text: run, epsilon, delta, …
        int8: integers or not, where there is a choice: "tflite" (default: float32) and "header".
        public_inputs: (count, *input_shape), public ones to take ranges from and to check with,
            in place of made-up ones: what they are goes into the files.
        calibration: "plain"; "improved": channels equalised between layers, averages of images
            with a scale of their own, ranges of all but one value in 10,000 at each end; "all":
            that, and biases corrected. From the same inputs.
        check: compare torch, integers, TensorFlow Lite Micro, C and emulated boards, as far as
            this machine has them.
        cost: measure flash, RAM and instructions by layer on an emulated Cortex-M4 (to "c" or
            "arduino"; needs dpsgd_torch[mcu]), into cost.html and cost.svg in the folder.

    Raises:
        ExportError: something that cannot be exported, by name; or a check found a difference.

    >>> import tempfile
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_model(model, input_shape=(4,), input_range=(0, 1), out=folder).names
    ('model.c', 'model.h')
    """
    target = Target(to, int8)
    declared = Declared(tuple(input_shape), input_range, tuple(labels), output)
    carried = dict(_UNSTATED if provenance is None else provenance)
    _refuse_hostile(carried)
    if public_inputs is None and isinstance(model, QuantizationAware):
        public_inputs = model.made_up_inputs
    inputs = _inputs(public_inputs, declared)
    evaluated, graph, _ = module_graph(model, declared, carried, inputs)
    delivery = Delivery(
        target=target,
        folder=Path(out),
        inputs=inputs,
        ranges_from=FROM_MADE_UP if public_inputs is None else FROM_GIVEN,
        statement=lambda names: exported(
            names,
            promised="unstated",
            integers=target.in_integers,
            given_ranges=public_inputs is not None,
        ).lstrip(),
        calibration=calibration,
        check_with=inputs if check else None,
        cost=cost,
    )
    done = deliver(Subject(graph, evaluated, declared, carried), delivery)
    if done.differences:
        raise ExportError(
            f"check: {done.differences[0]}; report it: do not use the files in {done.folder}"
        )
    return done


def _inputs(given: torch.Tensor | None, declared: Declared) -> torch.Tensor:
    if given is None:
        return synthetic_inputs(MADE_UP, declared.input_shape, declared.input_range)
    if given.shape[1:] != torch.Size(declared.input_shape) or not len(given):
        raise ExportError(
            f"public_inputs = {tuple(given.shape)}: must be (count, *{declared.input_shape})"
        )
    return given.detach().to("cpu", torch.float32)


def _refuse_hostile(provenance: Mapping[str, str]) -> None:
    for key, value in provenance.items():
        if not (is_plain(key) and is_plain(value)):
            raise ExportError(
                f"provenance = {shown(dict(provenance))}: must be lines of printable text, key → "
                f"text; mend {shown(key)}"
            )
