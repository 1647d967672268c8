"""What a run does with what was released: the filter before the optimizer, the average after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from accountant.errors import check
from dpsgd_torch.errors import ModelError
from dpsgd_torch.optim.averages import average_of
from dpsgd_torch.optim.base import Average, Filter, needs_deviation, tell_deviation
from dpsgd_torch.optim.disk import filter_of
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.training.optimizers import parts_of


def post_processing(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    plan: PrivacyPlan | None,
    average: str | Average | None,
    filter: str | Filter | None,
    *,
    shard: bool,
) -> dict[str, Any]:
    """The average and the filter that were asked for, ready for a model and its optimizer.

    A filter stands in front of noise: without any it is left out.

    Raises:
        InvalidValue, ModelError: what does not go together; nothing was charged.
    """
    parts, found = parts_of(optimizer), dict[str, Any]()
    averages, filters = average_of(average), filter_of(filter)
    for name, each in (("average", averages), ("filter", filters)):
        check(
            each is None or not shard,
            name,
            type(each).__name__,
            "holds tensors of the whole model, and shard none; drop one of them",
        )
    corrects = needs_deviation(parts)
    if plan and corrects:
        tell_deviation(parts, plan.noise.deviation(plan.step(0)))
        tell_deviation(parts, 0.0)  # the trial before the first charge has none
    if plan and filters and corrects:
        raise ModelError(
            f"filter = {type(filters).__name__}: leaves noise of another deviation than the one "
            f"that {next(type(p).__name__ for p in parts if needs_deviation([p]))} corrects for; "
            "choose another optimizer, or no filter"
        )
    if averages:
        found["average"] = averages.follow(model)
    if plan and filters:
        found["filter"] = _before_steps(filters, parts)
    return found


def _before_steps(filters: Filter, parts: list[torch.optim.Optimizer]) -> Filter:
    if len(parts) > 1:
        raise ModelError(
            f"filter = {type(filters).__name__}: stands before one optimizer, and there are "
            f"{len(parts)}; pass one, or no filter"
        )
    held = [p for group in parts[0].param_groups for p in group["params"] if p.requires_grad]
    filters.follow(held)
    parts[0].register_step_pre_hook(lambda *_: filters.apply())
    return filters
