"""Files that are read back: JSON and tensors with a digest of themselves, so that damage shows.

A flipped bit in a file without one would be another learning rate, another score or another ε.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dpsgd_torch.data.tensors import raw_bytes
from dpsgd_torch.errors import RunError, told
from dpsgd_torch.storage.aliases import KEY, metadata, stored_once, tied

_DIGEST = "sha256"
_NO_TENSORS = (
    SafetensorError, ValueError, AttributeError, KeyError, TypeError, RecursionError
)  # fmt: skip
_ADVICE = "restore it; a folder of an earlier version goes on with that version"


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` and its digest.

    >>> unsealed(sealed({"step": 7}))
    {'step': 7}
    """
    plain = json.loads(json.dumps(data, default=float))
    return {**plain, _DIGEST: _digest(plain)}


def unsealed(data: Any) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: it is not, or no longer, what was.
    """
    if not isinstance(data, dict) or _DIGEST not in data:
        raise ValueError("it holds no digest of itself")
    plain = {name: value for name, value in data.items() if name != _DIGEST}
    if _digest(plain) != data[_DIGEST]:
        raise ValueError("its digest is another than the one it holds")
    return plain


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a sealed file.

    Raises:
        RunError: it is missing, damaged, or something else.
    """
    try:
        return unsealed(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {_ADVICE}") from error


def tensors_to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A .safetensors file whose metadata holds the digest of its tensors.

    Where two names are one tensor it is stored once, and the metadata holds the other name too,
    in one entry with the digest: entries have no order, and a run repeats byte for byte.
    """
    kept, aliases = stored_once({k: t.detach().cpu().contiguous() for k, t in tensors.items()})
    if not aliases:
        return save_tensors(kept, metadata={_DIGEST: tensor_digest(kept)})
    recorded = sealed({"names": aliases, "tensors": tensor_digest(kept)})
    return save_tensors(kept, metadata={KEY: json.dumps(recorded, sort_keys=True)})


def tensors_from_bytes(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Its tensors under all their names; a file without a digest, as others write them, as it is.

    Raises:
        RunError: they are not what was written.
    """
    try:
        tensors = load_tensors(content)
        said, aliases = metadata(content), dict[str, str]()
        digest = said.get(_DIGEST)
        if KEY in said:
            recorded = unsealed(json.loads(said[KEY]))
            digest, aliases = recorded["tensors"], recorded["names"]
        every = tied(tensors, aliases)
    except _NO_TENSORS as error:
        raise RunError(f"{path}: damaged ({told(error)}); {_ADVICE}") from error
    if digest is not None and digest != tensor_digest(tensors):
        raise RunError(f"{path}: damaged (its tensors are not what was written); {_ADVICE}")
    return every


def tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, types, shapes and bytes."""
    result = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(raw_bytes(tensor))
    return result.hexdigest()


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
