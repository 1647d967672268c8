"""report.html's part on a board: what an export with --cost measured, kept beside the run.

Training measures nothing: that takes onnx, a compiler and an emulator, and some ten seconds.
"""

from __future__ import annotations

import hashlib
import re
from html import escape
from typing import TYPE_CHECKING

from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.errors import ExportError, RunError
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.tasks.registry import kind_of, public_inputs

if TYPE_CHECKING:
    from dpsgd_torch.export.cost import Cost

_FILE, _REPORT = "board.json", "report.html"
_BEGIN, _END = "<!-- on a board -->", "<!-- so much on a board -->"
_PART = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)
_NEXT = "<h2>Epoch by epoch</h2>"
"""What follows, in reports of versions that had no such part."""
_HOW = (
    '<p class="lead">Flash, RAM and instructions by layer, and milliseconds and µJ on named '
    "boards, stand here after <code>python -m dpsgd_torch.export RUN --to c --cost</code>, where "
    "RUN is this run’s folder.</p>"
)


def on_a_board(folder: RunFolder, config: RunConfig) -> str:
    """HTML: what was measured of the run's weights, else how to; empty for no board's model."""
    if kind_of(config.dataset).not_exported or not (folder.path / "model.safetensors").is_file():
        return ""
    try:
        public_inputs(config)
    except ExportError as error:
        return _wrapped(f'<p class="lead">Nothing to measure: {escape(str(error))}.</p>')
    try:
        return _told(folder)
    except (RunError, ValueError, KeyError, OSError):
        return _wrapped(_HOW)


def keep(folder: RunFolder, config: RunConfig, cost: Cost, provenance: dict[str, str]) -> bool:
    """Keep what was measured; False where there is no report to put it into."""
    from dpsgd_torch.export.kept_cost import to_json

    folder.write_sealed(_FILE, {"cost": to_json(cost), "provenance": provenance})
    try:
        page = (folder.path / _REPORT).read_text()
    except (OSError, ValueError):
        return False
    part = on_a_board(folder, config)
    if _BEGIN in page:
        page = _PART.sub(lambda _: part, page, count=1)
    elif _NEXT in page:
        page = page.replace(_NEXT, f"{part}\n{_NEXT}", 1)
    else:
        return False
    folder.write_text(_REPORT, page)
    return True


def _told(folder: RunFolder) -> str:
    kept = folder.read_sealed(_FILE)
    provenance = {str(name): str(value) for name, value in dict(kept["provenance"]).items()}
    weights = hashlib.sha256((folder.path / "model.safetensors").read_bytes()).hexdigest()
    if provenance["weights_sha256"] != weights:
        raise ValueError("measured of other weights")
    from dpsgd_torch.export.cost_section import cost_section
    from dpsgd_torch.export.kept_cost import from_json

    return _wrapped(cost_section(from_json(kept["cost"]), provenance, level=3))


def _wrapped(inside: str) -> str:
    lines = (_BEGIN, '<section class="board">', "<h2>On a board</h2>", inside, "</section>", _END)
    return "\n".join(lines)
