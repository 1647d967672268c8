"""Random draws that two passes share: the same stream, or none at all."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

HALF = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Seed every global generator alike, and give the caller's back; on a GPU, without TF32."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            with _without_tf32() if device.type == "cuda" else contextlib.nullcontext():
                yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Its ten bits would make a right gradient look wrong."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


class FrozenDraws(TorchDispatchMode):
    """Let random operations give constants, so that an example alone draws what it does in a batch.

    * Dropout keeps everything; uniform and normal draws are one half.
    * A permutation reverses: what shuffles examples does so here too.
    * ``drew`` says afterwards whether there was any, ``in_half`` whether half precision was used,
      ``in_fp16`` whether what is trained was cast to float16.

    Args:
        exact: casts to half precision give float32, autocast's and the model's own, so that the
            same operations run without its rounding.
    """

    def __init__(self, *, exact: bool = False) -> None:
        super().__init__()
        self.drew = self.in_half = self.in_fp16 = False
        self._exact = exact

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if given.get("dtype") in HALF:
            self.in_fp16 |= given["dtype"] is torch.float16 and _is_trained(args)
            if self._exact:
                given["dtype"] = torch.float32
        result = self._run(func, args, given)
        if isinstance(result, torch.Tensor) and result.dtype in HALF:
            self.in_half = True
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if "dropout_p" in kwargs or any(a.name == "dropout_p" for a in func._schema.arguments):
            args, kwargs = self._without_dropout(func, args, kwargs)
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.drew = True
        if name == "native_dropout":
            x, rate, training = args[0], args[1], args[2]
            kept = torch.ones_like(x, dtype=torch.bool)
            return (x / (1 - rate) if training and rate < 1 else x.clone()), kept
        if name == "multinomial":
            return args[0].topk(args[1], dim=-1).indices
        torch.manual_seed(0)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self._overwrite(name, result, args)
        return result

    def _without_dropout(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        given = list(args)
        for place, argument in enumerate(func._schema.arguments):
            if argument.name == "dropout_p":
                if place < len(given):
                    self.drew = self.drew or given[place] > 0
                    given[place] = 0.0
                elif "dropout_p" in kwargs:
                    self.drew = self.drew or kwargs["dropout_p"] > 0
                    kwargs["dropout_p"] = 0.0
        return tuple(given), kwargs

    @staticmethod
    def _overwrite(name: str, result: torch.Tensor, args: Any) -> None:
        if name == "randperm":
            result.copy_(torch.arange(len(result) - 1, -1, -1, device=result.device))
        elif name == "bernoulli" and len(args) == 1:
            result.copy_(args[0] >= 0.5)
        elif name.startswith("bernoulli"):
            result.fill_(1)
        elif name.startswith(("rand", "uniform", "normal", "exponential", "log_normal", "cauchy")):
            result.fill_(0.5 if result.is_floating_point() else int(result.min()))


def _is_trained(args: Any) -> bool:
    """Whether what is cast is a parameter that is trained: a leaf."""
    return any(isinstance(a, torch.Tensor) and a.requires_grad and a.is_leaf for a in args)
