"""Normalisation layers: the scale and the shift that come after the statistics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from dpsgd_torch.gradients.graph.rows import Rows
from dpsgd_torch.gradients.graph.rules.base import NoRule, node_rule
from dpsgd_torch.gradients.graph.rules.inputs import fitted
from dpsgd_torch.gradients.graph.rules.sums import split, summed_over, summed_to
from dpsgd_torch.gradients.parts import Part, Written
from dpsgd_torch.gradients.parts.pieces import real


@node_rule("NativeLayerNormBackward0")
def layer_norm(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """weight × (x − mean) / σ + bias over the last dimensions [Ba et al. 2016]."""
    leading = delta.dim() - len(node._saved_normalized_shape)
    back = split(rows, delta, leading)
    found: dict[int, Part] = {}
    if 1 in wanted:
        centred = real(node._saved_input) - node._saved_result1
        seen = centred.mul_(node._saved_result2).mul_(delta)
        found[1] = Written(fitted(summed_over(split(rows, seen, leading), 1), node, 1))
    if 2 in wanted:
        found[2] = Written(fitted(summed_over(back, 1), node, 2))
    return found


@node_rule("FusedRmsNormBackward0")
def rms_norm(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """weight × x / root mean square [Zhang and Sennrich 2019], one kernel on a GPU."""
    leading = delta.dim() - len(node._saved_normalized_shape)
    seen = (real(node._saved_input) * node._saved_result1).mul_(delta)
    return {1: Written(fitted(summed_over(split(rows, seen, leading), 1), node, 1))}


@node_rule("NativeGroupNormBackward0")
def group_norm(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """weight × (x − mean) / σ + bias, by groups of channels [Wu and He 2018].

    Summed over positions first, as in torch's own kernel: a channel's mean and σ are the same at
    all of them.
    """
    if rows.dim:
        raise NoRule("its examples are not in the first dimension; put them there")
    count, channels, groups = node._saved_N, node._saved_C, node._saved_group
    shifts = _over_positions(delta)
    found: dict[int, Part] = {}
    if 1 in wanted:
        by_group = (count, groups, channels // groups)
        products = _over_positions(real(node._saved_input) * delta).view(by_group)
        mean = node._saved_result1.view(count, groups, 1)
        rstd = node._saved_result2.view(count, groups, 1)
        scales = (products - mean * shifts.view(by_group)).mul_(rstd).flatten(1)
        found[1] = Written(fitted(summed_over(split(rows, scales, 1), 1), node, 1))
    if 2 in wanted:
        found[2] = Written(fitted(summed_over(split(rows, shifts, 1), 1), node, 2))
    return found


def _over_positions(values: torch.Tensor) -> torch.Tensor:
    """(count, channels): summed over everything after them, whatever the memory's order."""
    return summed_over(values, list(range(2, values.dim()))) if values.dim() > 2 else values


@node_rule("NativeBatchNormBackward0")
def batch_norm(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """weight × (x − mean) / σ + bias, where mean and σ are stored and not the batch's."""
    if node._saved_training:
        return batch_statistics(node, delta, wanted, rows)
    per_channel = (-1, *(1,) * (delta.dim() - 2))
    channels = torch.Size((delta.shape[1], *per_channel[1:]))
    found: dict[int, Part] = {}
    if 1 in wanted:
        rstd = (node._saved_running_var + node._saved_eps).rsqrt().view(per_channel)
        mean = node._saved_running_mean.view(per_channel)
        seen = ((real(node._saved_input) - mean) * rstd).mul_(delta)
        found[1] = Written(fitted(summed_to(seen, channels, rows).flatten(1), node, 1))
    if 2 in wanted:
        found[2] = Written(fitted(summed_to(delta, channels, rows).flatten(1), node, 2))
    return found


@node_rule(
    *("CudnnBatchNormBackward0", "MiopenBatchNormBackward0", "BatchNormWithUpdateBackward0"),
    *("BatchNormNoUpdateBackward0", "NativeBatchNormLegitBackward0"),
    *("NativeBatchNormLegitBackward1", "SyncBatchNormBackward"),
)
def batch_statistics(
    node: Any, delta: torch.Tensor, wanted: Collection[int], rows: Rows
) -> dict[int, Part]:
    """Statistics of the batch: every example's gradient depends on the others."""
    raise NoRule("batch statistics mix examples; use replace_batchnorm(model), or model.eval()")
