"""The kinds of model files, told by what is in them, one line a kind."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

from dpsgd_torch.features.model_files.archives import members
from dpsgd_torch.features.model_files.exported import read_exported
from dpsgd_torch.features.model_files.named import ModelFile
from dpsgd_torch.features.model_files.onnx_file import read_onnx
from dpsgd_torch.features.model_files.program import Program, refused
from dpsgd_torch.features.model_files.scripted import read_scripted

_ARCHIVES: dict[str, Callable[[str, dict[str, bytes]], Program]] = {  # by a member's name
    "archive_format": read_exported,
    "constants.pkl": read_scripted,
}
_PICKLE = (
    "is a pickle, which may run anything when it is read; save the model with torch.export.save("
    "torch.export.export(model.eval(), (rows,)), 'FILE.pt2'), or as ONNX"
)


def read_program(file: ModelFile) -> Program:
    """The model in a file, ready to run.

    Raises:
        ConfigError: a file that is gone or another one, a pickle, or of no kind that is known.
    """
    name, content = file.name, file.content()
    if zipfile.is_zipfile(io.BytesIO(content)):
        held = members(name, content)
        for member, read in _ARCHIVES.items():
            if member in held:
                return read(name, held)
        raise refused(name, _PICKLE)  # torch.save's, or an older torch.export's
    if content[:1] == b"\x80":
        raise refused(name, _PICKLE)
    if file.path.suffix == ".onnx":
        return read_onnx(name, content)
    raise refused(name, "is no .onnx file, nor one of torch.export.save or torch.jit.save")
