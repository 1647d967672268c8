"""Tensors kept in the user's cache, by a digest of all that they were made of.

Features of private rows are private data: ε covers none of what lies there. The folder has mode
0700 and its files 0600, and whoever makes features is told where they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

_FOLDER = "features"
_NAME = "kept"


def kept(key: str, make: Callable[[], torch.Tensor], *, what: str, folder: Path) -> torch.Tensor:
    """The tensor under ``key`` in ``folder``; made, and put there, where there is none to read.

    A file is whole or absent, whoever else makes the same; one that is damaged is made anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = folder / f"{what}-{key}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        return load_file(path)[_NAME]
    made = make()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{what}-")  # mode 0600
        os.close(handle)
    except OSError:
        return made  # a machine without a cache makes it each time
    try:
        save_file({_NAME: made.contiguous()}, partial)
        os.chmod(partial, 0o600)
        os.replace(partial, path)
    except (OSError, SafetensorError):
        Path(partial).unlink(missing_ok=True)
    return made


def cache_folder() -> Path:
    """Where features are kept: ``features`` in the user's cache of dpsgd_torch."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("dpsgd_torch")) / _FOLDER


def digest(*parts: object) -> str:
    """32 hexadecimal digits of tensors (shape, type, values) and of the text of what else there is.

    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)) != digest(torch.zeros(3))
    True
    """
    found = hashlib.sha256()
    for part in (*parts, _code()):
        if isinstance(part, torch.Tensor):
            found.update(f"{tuple(part.shape)} {part.dtype} ".encode())
            found.update(part.contiguous().numpy().tobytes())
        else:
            found.update(f"{part!r} ".encode())
    return found.hexdigest()[:32]


@cache
def _code() -> str:
    """A digest of this room's source, and torch's version: other code makes other features."""
    found = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
