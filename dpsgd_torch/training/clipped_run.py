"""What a run's clip needs of its model, or why the two do not go together."""

from __future__ import annotations

from torch import nn

from accountant.errors import check
from dpsgd_torch.clipping.adaptive import AdaptiveClipping
from dpsgd_torch.clipping.base import Group
from dpsgd_torch.privacy.plan import PrivacyPlan
from dpsgd_torch.training.followed import FollowedClipNorm


def groups_of(
    plan: PrivacyPlan | None, model: nn.Module, trained: list[nn.Parameter], *, compiles: bool
) -> tuple[Group, ...]:
    """What is clipped apart, of the parameters in the optimizer's order.

    Raises:
        InvalidValue: a parameter is in no group; or passes are compiled, which have one factor.
    """
    if plan is None or plan.clipping.whole:
        return ()
    rule = "cuts each group by a factor of its own, and compiled sums take one"
    check(not compiles, "clipping", plan.clipping.name, rule, "leave out compile, or clip flat")
    names = {p: name for name, p in model.named_parameters()}
    return plan.clipping.groups({names[p]: p.numel() for p in trained})


def followed_of(plan: PrivacyPlan | None, *, shard: bool) -> FollowedClipNorm | None:
    """The clip norm as state, where it goes by what steps tell.

    Raises:
        InvalidValue: each process holds a part of the model alone.
    """
    if plan is None or not isinstance(plan.clipping, AdaptiveClipping):
        return None
    rule = "tells a count that goes by no part of a model"
    check(not shard, "clipping", plan.clipping.name, rule, "leave out shard, or clip flat")
    return FollowedClipNorm(plan.clipping, plan.clip_norm.at(0))
