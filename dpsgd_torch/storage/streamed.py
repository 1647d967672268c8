"""Writing a .safetensors file a tensor at a time, so that memory holds one of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from dpsgd_torch.data.tensors import raw_pieces

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Shape = tuple[torch.dtype, tuple[int, ...]]


def write_tensors(
    path: Path,
    shapes: Mapping[str, Shape],
    tensors: Iterable[torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write tensors durably, in the order of ``shapes``; returns the file's sha256.

    >>> import tempfile; from safetensors.torch import load_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "two.safetensors"
    ...     two = {"a": torch.ones(2, 1), "b": torch.tensor(3)}
    ...     kinds = {name: (t.dtype, tuple(t.shape)) for name, t in two.items()}
    ...     digest = write_tensors(path, kinds, two.values())
    ...     {name: t.tolist() for name, t in load_file(path).items()}
    {'a': [[1.0], [1.0]], 'b': 3}
    """
    head: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        end = at + dtype.itemsize * torch.Size(shape).numel()
        head[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    told = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text):
            told.update(piece)
            file.write(piece)
        for tensor in tensors:
            for part in raw_pieces(tensor):
                told.update(part)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return told.hexdigest()


def digest_of(path: Path) -> str:
    """A file's sha256, a part of it in memory at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
