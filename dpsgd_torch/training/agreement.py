"""What all ranks of a run must share before anything is charged; and their copies of its ledger."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

from accountant import Ledger
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.training.checkpoint import optimizer_state
from dpsgd_torch.training.described import described_model
from dpsgd_torch.training.fingerprint import digest, environment, hashed
from dpsgd_torch.training.state import RunState
from dpsgd_torch.version import __version__


def agree_on_all(run: RunState, asked: Mapping[str, Any]) -> None:
    """Refuse a rank whose contract, weights, code, streams or libraries are not rank 0's.

    Raises:
        RunError: naming the rank, and what differs.
    """
    if run.world.is_alone:
        return
    run.data_digest = str(asked["data"])
    parts = {name: _hashed(part) for name, part in asked.items()}
    parts["Python"] = platform.python_version()
    parts["model's code"] = _hashed(described_model(run.model))
    parts["weights"] = digest(run.model.state_dict().values())
    parts["seed"] = _hashed([f"{run.streams.root:x}", run.streams.context])
    parts["plan"] = _hashed(run.plan.noise_multiplier.to_json() if run.plan else None)
    parts["release of dpsgd_torch"] = __version__
    parts["processor or libraries"] = environment(run.device, run.method.kind)
    run.world.agree("the beginning", **parts)


def agree_on_weights(run: RunState) -> None:
    """Refuse a rank whose model or weights are not rank 0's, before it lends others a part of them.

    Raises:
        RunError: naming the rank, and what differs.
    """
    model, held = str(run.model), run.model.state_dict().values()
    run.world.agree("the beginning", model=_hashed(model), weights=digest(held))


def agree_on_checkpoint(run: RunState) -> None:
    """Refuse a rank that is at another step, plan or data, or holds another state, than rank 0.

    The data's digest is that of the beginning: rows are not passed over again.

    Raises:
        RunError: naming the rank, and what differs.
    """
    if run.world.is_alone:
        return
    if run.is_apart:  # each rank holds other parts; what is public of them was agreed on
        held: dict[str, Any] = {}
    else:
        held = {"weights": digest(run.model.state_dict().values())}
        held["state_of_the_optimizer"] = _state(run)
    run.world.agree(
        "a checkpoint",
        step=run.done,
        attempt=run.attempt,
        plan=_hashed(run.plan.noise_multiplier.to_json() if run.plan else None),
        data=run.data_digest,
        **held,
    )


def _state(run: RunState) -> str:
    tensors, plain = optimizer_state(run.optimizer)
    tensors |= {f"noise.{name}": tensor for name, tensor in run.noise_state.items()}
    return _hashed([plain, digest(tensors[n] for n in sorted(tensors))])


def copied_ledger(plan: PrivacyPlan, rows: Mapping[str, Any], part: str) -> Ledger:
    """Rank 0's ledger as another rank follows it: in memory, without a say."""
    copied = Ledger.of_rows(rows, delta=plan.delta, relation=plan.sampling.relation)
    return copied.part(part)


def _hashed(part: Any) -> str:
    return hashed([json.dumps(part, default=float).encode()])
