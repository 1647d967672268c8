"""Settings that follow ε or n, in a search: ε is what one of its trials may spend."""

from __future__ import annotations

import dataclasses
from typing import Any

from accountant.calibration import cost
from dpsgd_torch.app.config import RunConfig
from dpsgd_torch.app.folds import chosen_units, sized
from dpsgd_torch.app.presets import PRESETS
from dpsgd_torch.app.search.allowance import Events
from dpsgd_torch.app.search.space import default_space
from dpsgd_torch.tasks.task import Task


def follow_size(config: RunConfig, kept: dict[str, Any], task: Task) -> RunConfig:
    """``config`` with its preset's batch lowered to n where n is smaller, as in a single run.

    A batch that is varied is the trials' own; the search is priced at the preset's.
    """
    varied = {each["name"] for each in kept["space"]} & {"microbatches"}
    fixed = {"batch_size", "microbatches"} & set(kept.get("given", ("batch_size",)))
    if PRESETS[config.preset]().batch_follows and not fixed | varied:
        whole = sized(config, task, chosen_units(config, task), follows=True)
        config = config.changed(batch_size=whole.batch_size)
        kept["config"] = {**config.to_json(), "seed": kept["config"]["seed"]}
    return config


def follow(config: RunConfig, kept: dict[str, Any], own: Events) -> RunConfig:
    """``config`` with what follows ε, by what a trial's ``own`` events cost; ``kept`` keeps it.

    What was set or is varied follows nothing. All of it is declared, and what a trial spends is
    bounded whatever its settings are: the search's price is as it was.
    """
    given = kept.get("given")
    if given is not None:  # a search of an earlier version goes on as it began
        rule, fixed = PRESETS[config.preset]().follow, {*given, *(d["name"] for d in kept["space"])}
        epsilon = cost(own, config.delta)
        values = {n: v for n, v in (rule(epsilon) if rule else {}).items() if n not in fixed}
        config = config.changed(**values)
        kept["config"] = {**config.to_json(), "seed": kept["config"]["seed"]}
        kept["followed"] = {"epsilon": epsilon, "values": values}
    if not kept["space"]:
        kept["space"] = [dataclasses.asdict(each) for each in default_space(config)]
        for each in kept["space"]:  # which lies around it
            kept.get("followed", {"values": {}})["values"].pop(each["name"], None)
    return config


def told(kept: dict[str, Any]) -> str:
    """What followed which ε, as a sentence; empty where nothing did."""
    followed = kept.get("followed") or {"values": {}}
    if not followed["values"]:
        return ""
    values = ", ".join(f"{name} = {value:.6g}" for name, value in followed["values"].items())
    return (
        f"By the preset's rule, at ε = {followed['epsilon']:.4g}, which one trial with its "
        f"settings may spend: {values}."
    )
