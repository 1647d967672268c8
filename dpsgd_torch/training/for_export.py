"""What ``Trainer.save`` adds where the model's owner declares what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from dpsgd_torch.data.base import Tensor
from dpsgd_torch.data.trees import kinds
from dpsgd_torch.errors import ExportError, told
from dpsgd_torch.storage.run_folder import RunFolder


def save_for_export(
    folder: RunFolder,
    model: nn.Module,
    unit: str | None,
    inputs: Any,
    input_range: tuple[float, float] | None,
    labels: Sequence[str],
    output: str,
) -> None:
    """Write the model's graph and task.json beside its weights; nothing where nothing is declared.

    Args:
        folder: where model.safetensors was written.
        model: what was trained; a copy in evaluation mode is written.
        unit: of privacy; None where the training was not private.
        inputs: of one example, as the data's schema says.
        input_range: between which every input value lies, as the owner declares.
        labels: names of the outputs, in order, or none.
        output: "logits", "probabilities" or "values".

    Raises:
        ExportError: the model cannot be written as a graph; the weights are there all the same.
    """
    if input_range is None and not labels:
        return
    kept = f"weights and ledger are in {folder.path}, which cannot be exported as it is"
    try:
        if input_range is None:
            raise ExportError("input_range = None: pass (low, high), what every input lies between")
        if not isinstance(inputs, Tensor):
            raise ExportError(
                f"inputs = {kinds(inputs)}: a graph for a device takes one tensor; train on one, "
                "or save without input_range and labels"
            )
        shape = tuple(size for size in inputs.shape if size is not None)
        if len(shape) < len(inputs.shape):
            raise ExportError(
                "inputs are padded to another length in each batch: a graph for a device takes one "
                "shape; pad to a declared length, or save without input_range and labels"
            )
        # onnx comes along, which training does without
        from dpsgd_torch.export.saved_model import Declared, write_saved_model

        declared = Declared(shape, input_range, tuple(labels), output)
        write_saved_model(folder, model, declared, unit)
    except ImportError as error:
        raise ExportError(
            f"input_range = {input_range}: a graph cannot be written ({told(error)}); pip install "
            f"'dpsgd_torch[export]' and save again; {kept}"
        ) from error
    except ExportError as error:
        raise ExportError(f"{error}; {kept}") from error
