"""What a run writes down before its first charge, and a resumed one reads back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from accountant import Ledger
from dpsgd_torch.errors import RunError
from dpsgd_torch.gradients.methods import RENAMED
from dpsgd_torch.schedules import schedule_from_json
from dpsgd_torch.storage.run_folder import RunFolder
from dpsgd_torch.training.described import described_model
from dpsgd_torch.training.fingerprint import contract, digest, refuse_changed
from dpsgd_torch.training.keeping import keep
from dpsgd_torch.training.own_code import own_code
from dpsgd_torch.training.rehearse import method_of
from dpsgd_torch.training.state import RunState
from dpsgd_torch.training.streams import Streams


def streams_of(run: RunState, asked: dict[str, Any]) -> Streams:
    """The run's streams, their noise keyed by what was asked, initial weights and own code.

    Where no digest covers all of the data, each step's noise is keyed by its sums as well.
    """
    kept = run.steering.held_out
    run.keyed = not (run.data.told_whole and (kept is None or kept.data.told_whole))
    begun = digest(run.model.state_dict().values())
    heard = [run.heard] if run.heard else []
    context = json.dumps([asked, begun, described_model(run.model), *heard, *own_code(run)])
    told = hashlib.sha256(context.encode()).hexdigest()
    return dataclasses.replace(run.streams, context=told)


def write_beginning(run: RunState, asked: dict[str, Any]) -> None:
    """All that ``take_up`` reads; the contract last: without one there is nothing to resume."""
    if run.folder:
        run.folder.write_root(run.streams.root)
    if run.keeps:
        keep(run, begun=True)
    if run.folder is None:
        return
    kept = {
        "contract": asked,
        "noise_multiplier": run.plan.noise_multiplier.to_json() if run.plan else None,
        "noise_context": run.streams.context,
        "noise_by_sums": run.keyed,
    }
    if computed := run.plan.noise.computed() if run.plan else {}:
        kept["noise_computed"] = computed
    run.folder.write_sealed("private/contract.json", kept)


def read_begun(folder: RunFolder) -> dict[str, Any]:
    """What ``take_up`` needs of a run's folder, JSON throughout.

    Raises:
        RunError: no run is there.
    """
    folder.refuse_links()
    folder.refuse_begun_only()
    kept = folder.read_sealed("private/contract.json")
    return {"kept": kept, "root": folder.read_root(), "path": str(folder.path)}


def take_up(run: RunState, begun: dict[str, Any]) -> None:
    """Give ``run`` the plan and the streams it began with.

    Raises:
        RunError: it was asked for something else.
    """
    kept = begun["kept"]
    began = dict(kept["contract"])
    began["gradients"] = kind = RENAMED.get(str(began["gradients"]), str(began["gradients"]))
    # what began compiled has other bits: it goes on compiled, or not at all
    if run.method.automatic and kind not in (run.method.kind, "compiled"):
        run.method = method_of(run, kind)
    if run.picks_size:  # another machine may have picked another
        run.physical_batch_size = kept["contract"]["physical batch size"]
    usual = {"precision": "float32"}  # which no contract mentions
    refuse_changed(usual | began, usual | contract(run), begun["path"])
    run.extended = bool(kept.get("extended"))
    run.keyed = bool(kept.get("noise_by_sums"))  # older runs: by the contract alone
    if run.plan:
        run.plan = dataclasses.replace(
            run.plan,
            noise_multiplier=schedule_from_json(kept["noise_multiplier"]),
            noise=run.plan.noise.as_computed(kept.get("noise_computed", {})),
        )
    run.streams = dataclasses.replace(
        run.streams, root=begun["root"], context=kept["noise_context"]
    )


def refuse_old_copy(ledger: Ledger, folder: RunFolder, step: int, charges: int) -> None:
    """Refuse a ledger that holds less than it did at the checkpoint, and let go of it."""
    if (held := len(ledger)) < charges:
        ledger.close()
        raise RunError(
            f"ledger {folder.ledger}: holds {held} charges, {charges} were made by step {step}: it "
            "is an old copy; restore the newest, with its -wal file if it has one"
        )
