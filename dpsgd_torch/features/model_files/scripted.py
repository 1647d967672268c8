"""TorchScript files: programs of torch's own operators, run by its interpreter."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import torch

from dpsgd_torch.errors import told
from dpsgd_torch.features.model_files.archives import archive_of
from dpsgd_torch.features.model_files.program import Program, refused

_FILES = re.compile(r"\b(?:torch|ops\.aten)\.(?:save|load|from_file)\b")
_OTHERS = re.compile(r"\bops\.(?!(?:aten|prim|quantized)\.)\w+")


def read_scripted(name: str, held: Mapping[str, bytes]) -> Program:
    """The model of a TorchScript file, put into eval mode.

    The file is code: what it may call is looked at before any of it runs. Its own tables are read
    by torch's C++ reader, which knows tensors and containers, and no Python.

    Raises:
        ConfigError: an operator that reads or writes files, or is none of torch's; or what torch
            cannot open.
    """
    for path, content in held.items():
        if path.startswith("code/") and path.endswith(".py"):
            code = content.decode(errors="replace")
            if found := _FILES.search(code) or _OTHERS.search(code):
                raise refused(name, f"calls {found[0]}, which no feature needs; export it without")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            model = torch.jit.load(archive_of(held), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise refused(name, f"torch cannot open it ({told(error)}); save it again") from None
    return Program(model)
