"""Folders that ``Trainer.save`` left, changed by hand, and what an export says of them."""

import json

from dpsgd_torch.export.__main__ import main as export
from dpsgd_torch.storage.sealed import sealed, unsealed


def refused(capsys, folder, *flags):
    """The one line of a refusal that wrote nothing."""
    before = sorted(folder.rglob("*"))
    assert export([str(folder), *(flags or ("--to", "c"))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(folder.rglob("*")) == before
    return line


def resealed(folder, **changes):
    """As whoever knows how the seal is made can change it."""
    data = unsealed(json.loads((folder / "task.json").read_text()))
    (folder / "task.json").write_text(json.dumps(sealed({**data, **changes})))
