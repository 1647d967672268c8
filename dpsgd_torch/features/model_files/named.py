"""A model's file by its name and digest: what a run began with is what it goes on with."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from dpsgd_torch.errors import ConfigError, shown

_SEAL = "@sha256:"


@dataclass(frozen=True)
class ModelFile:
    """A file that is named ``PATH`` or, with its digest, ``PATH@sha256:DIGEST``.

    >>> str(ModelFile.named("net.onnx@sha256:" + 64 * "0"))[:24]
    'net.onnx@sha256:00000000'
    """

    path: Path
    sha256: str

    @classmethod
    def named(cls, text: str) -> ModelFile:
        """The file of that name, its digest taken now where none is given.

        Raises:
            ConfigError: no such file, or a digest that is none.
        """
        name, seal, digest = text.rpartition(_SEAL)
        if not seal:
            return cls(Path(text), _digest(_read(Path(text))))
        if not name or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ConfigError(
                f"features_from = {shown(text)}: has no SHA-256 of 64 hexadecimal digits after "
                f"{_SEAL}; name the file alone"
            )
        return cls(Path(name), digest)

    def __str__(self) -> str:
        return f"{self.path}{_SEAL}{self.sha256}"

    @property
    def name(self) -> str:
        return self.path.name

    def content(self) -> bytes:
        """What the file holds.

        Raises:
            ConfigError: it is gone, or another one.
        """
        content = _read(self.path)
        if (found := _digest(content)) != self.sha256:
            raise ConfigError(
                f"features_from = {self.path}: is another file than was named (sha256 "
                f"{self.sha256[:12]}… → {found[:12]}…); put that one back, or start a new run"
            )
        return content


def _read(path: Path) -> bytes:
    kinds = "name a model: FILE.onnx, FILE.pt2 (torch.export.save) or FILE.pt (TorchScript)"
    if not path.is_file():
        raise ConfigError(f"features_from = {shown(str(path))}: there is no such file; {kinds}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"features_from = {path}: cannot be read ({error.strerror}); {kinds}"
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
