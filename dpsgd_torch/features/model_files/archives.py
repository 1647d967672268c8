"""Zip archives as torch writes them: read once, and handed on as what was read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from dpsgd_torch.features.model_files.program import refused


def members(name: str, content: bytes) -> dict[str, bytes]:
    """What an archive holds, by path below its one folder.

    Raises:
        ConfigError: it is damaged, or holds two of one name, of which readers may take either.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            paths = archive.namelist()
            held = {each.partition("/")[2]: archive.read(each) for each in paths}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise refused(name, "is a damaged archive; save it again") from None
    if len(held) < len(paths):
        raise refused(name, "holds two members of one name; save it again")
    return held


def archive_of(held: Mapping[str, bytes]) -> io.BytesIO:
    """An archive of just these."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for path, content in held.items():
            archive.writestr(f"model/{path}", content)
    copy.seek(0)
    return copy
