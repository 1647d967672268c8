"""A function of tensors, traced into one flat graph without a break, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dpsgd_torch.gradients.compiled.held import CannotCompile

_HALF = (torch.float16, torch.bfloat16)


class Stage:
    """What is traced over tensors without values, and runs as compiled loops once it is called.

    Args:
        constants: whether the function holds tensors of its own.

    Raises:
        CannotCompile: a trace cannot follow it.
    """

    def __init__(
        self,
        function: Callable[..., list[torch.Tensor]],
        given: tuple[Any, ...],
        *,
        constants: bool = False,
    ) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx  # takes its time

        try:
            # a function, since a bound method counts as one argument more
            self.graph = make_fx(
                lambda *of: function(*of),
                tracing_mode="fake",
                _allow_non_fake_inputs=constants,
            )(*given)
        except Exception as error:  # whatever a trace cannot follow
            raise CannotCompile(_why(error)) from error
        options: dict[str, Any] = {"fallback_random": True}  # torch's own draws, by its generator
        self._compiled = torch.compile(self.graph, fullgraph=True, dynamic=False, options=options)

    def __call__(self, *given: Any) -> list[torch.Tensor]:
        # whoever watches each operation sees them one by one
        watched = torch._C._len_torch_dispatch_stack() > 0
        found: list[torch.Tensor] = (self.graph if watched else self._compiled)(*given)
        return found

    def begin(self, *given: Any) -> list[torch.Tensor]:
        """The first call, which compiles.

        Raises:
            CannotCompile: there is no compiler, or one that fails.
        """
        try:
            return self(*given)
        except Exception as error:
            raise CannotCompile(_why(error)) from error

    def halves(self) -> set[torch.dtype]:
        """The half precisions that are computed in."""
        values = (node.meta.get("val") for node in self.graph.graph.nodes)
        return {v.dtype for v in values if isinstance(v, torch.Tensor) and v.dtype in _HALF}

    def draws(self) -> bool:
        return any(
            torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            for node in self.graph.graph.nodes
        )


def _why(error: Exception) -> str:
    """The first line of what was raised within, cut short."""
    error = getattr(error, "inner_exception", error)
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {said[:160]}"
