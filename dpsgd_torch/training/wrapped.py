"""Models that another engine has wrapped to train over several processes: refused by name."""

from __future__ import annotations

from torch import nn

from dpsgd_torch.errors import ModelError

_WRAPPERS = {
    "DistributedDataParallel": "pass the module inside it (model.module), and run under torchrun",
    "DataParallel": "pass the module inside it (model.module), and run under torchrun",
    "FullyShardedDataParallel": "pass the bare module, with shard=True, and run under torchrun",
    "FSDPModule": "pass the module before fully_shard, with shard=True, and run under torchrun",
}


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model whose gradients another engine adds up itself, without clip and noise.

    Parameters that are ``DTensor`` (tensor parallelism) are refused by name as well.

    >>> refuse_wrapped(nn.DataParallel(nn.Linear(2, 1)))
    Traceback (most recent call last):
    dpsgd_torch.errors.ModelError: model = DataParallel: would add up gradients ...
    """
    for name, p in model.named_parameters():
        for each in (p, p.data):
            if type(each).__name__ == "DTensor":
                placed = getattr(each, "placements", "")
                raise ModelError(
                    f"parameter {name} = DTensor {placed}: neither clip nor noise is taken over a "
                    "mesh; pass the module before it is parallelized or fully_shard is called, "
                    "with shard=True, and run under torchrun"
                )
    for module in model.modules():
        for kind in type(module).__mro__:
            if kind.__module__.startswith("torch.") and kind.__name__ in _WRAPPERS:
                raise ModelError(
                    f"model = {kind.__name__}: would add up gradients itself, where they must be "
                    f"clipped first and get one noise; {_WRAPPERS[kind.__name__]}"
                )
