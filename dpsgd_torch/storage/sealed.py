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

_DIGEST = "sha256"
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
    """A .safetensors file whose metadata holds the digest of its tensors."""
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    return save_tensors(kept, metadata={_DIGEST: tensor_digest(kept)})


def tensors_from_bytes(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Its tensors; a file without a digest, as others write them, is taken as it is.

    Raises:
        RunError: they are not what was written.
    """
    try:
        tensors = load_tensors(content)
        size = int.from_bytes(content[:8], "little")
        digest = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(_DIGEST)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({told(error)}); {_ADVICE}") from error
    if digest is not None and digest != tensor_digest(tensors):
        raise RunError(f"{path}: damaged (its tensors are not what was written); {_ADVICE}")
    return tensors


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
