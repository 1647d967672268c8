"""Layers that torch has in another form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional


class WeightNormLinear(nn.Module):
    """Weight-normalised linear layer: y = g · (x · v / ‖v‖) + b, one g and ‖v‖ an output.

    [Salimans, Kingma 2016, Eq. 2]. ``torch.nn.utils.parametrizations.weight_norm`` computes the
    same; here both parameters belong to one layer.

    Args:
        in_features: inputs an example.
        out_features: outputs an example.

    >>> layer = WeightNormLinear(3, 2)
    >>> layer(torch.ones(5, 3)).shape, [tuple(p.shape) for p in layer.parameters()]
    (torch.Size([5, 2]), [(2, 3), (2,), (2,)])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        self.weight_g = nn.Parameter(torch.empty(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.projection = nn.Identity()  # in contracts of runs: it stays
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Glorot-uniform v, g = ‖v‖ (so that y = x · v + b), zero bias."""
        nn.init.xavier_uniform_(self.weight_v, generator=generator)
        with torch.no_grad():
            self.weight_g.copy_(self.weight_v.norm(dim=1))
        nn.init.zeros_(self.bias)

    def direction(self) -> torch.Tensor:
        """(out_features, in_features) v / ‖v‖."""
        return self.weight_v / self.weight_v.norm(dim=1, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) → (…, out_features)."""
        if self._as_one_node(x):
            found: torch.Tensor = WeightNormProduct.apply(
                x, self.weight_v, self.weight_g, self.bias
            )
            return found
        return self.projection(functional.linear(x, self.direction())) * self.weight_g + self.bias

    def _as_one_node(self, x: torch.Tensor) -> bool:
        """Whether autograd, and nothing else, looks on: no hook, transform, export or cast."""
        return (
            torch.is_grad_enabled()
            and type(x) is torch.Tensor
            and not self.projection._forward_hooks
            and not torch.compiler.is_compiling()
            and not torch._C._get_tracing_state()
            and not torch.is_autocast_enabled(x.device.type)
            and torch._C._functorch.peek_interpreter_stack() is None
            and forward_ad._current_level < 0
        )

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class WeightNormProduct(torch.autograd.Function):
    """WeightNormLinear as one node of the graph, which keeps x · v / ‖v‖ for per-example gradients.

    Whoever tells the gradients of parameters without its backward adds to ``told`` beforehand: then
    the backward leaves them out.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, v: torch.Tensor, g: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        direction = v / v.norm(dim=1, keepdim=True)
        u = functional.linear(x, direction)
        ctx.save_for_backward(x, v, g, u, direction)
        ctx.told = []
        return u * g + bias

    @staticmethod
    def backward(ctx: Any, *deltas: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (delta,), (x, v, g, u, direction) = deltas, ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            direction = v / v.norm(dim=1, keepdim=True)
            u = functional.linear(x, direction)
        found: list[torch.Tensor | None] = [None] * 4
        if ctx.needs_input_grad[0]:
            found[0] = (delta * g) @ direction
        if not ctx.told:
            delta, x, u = (t.reshape(-1, t.shape[-1]) for t in (delta, x, u))
            seen = (delta * u).sum(0)
            whole = delta.T @ x - seen[:, None] * direction
            found[1:] = (g / v.norm(dim=1))[:, None] * whole, seen, delta.sum(0)
        return tuple(found)


class _Standardized(nn.Module):
    """Weights of fan-in N > 1, standardized output by output, times a gain each."""

    def __init__(self, shape: tuple[int, ...], *, bias: bool, gain: bool, eps: float) -> None:
        super().__init__()
        fan_in = math.prod(shape[1:])
        if fan_in < 2:
            raise ValueError(
                f"{type(self).__name__}: an output of fan-in {fan_in} has no variance, and would "
                "be zero; use the plain layer, with kernels of more than one cell or channel"
            )
        if not eps > 0:
            raise ValueError(f"{type(self).__name__}: eps = {eps}: must be above 0; leave it out")
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(shape))
        self.gain = nn.Parameter(torch.ones(shape[0])) if gain else None
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Normal weights of variance 1/N, gains one, biases zero."""
        with torch.no_grad():
            self.weight.normal_(0.0, self.weight[0].numel() ** -0.5, generator=generator)
            if self.gain is not None:
                self.gain.fill_(1.0)
            if self.bias is not None:
                self.bias.fill_(0.0)

    def standardized(self) -> torch.Tensor:
        """The weights that the layer multiplies by: gain (v − mean) / √(N variance + eps)."""
        rows = self.weight.flatten(1)
        off = rows - rows.mean(dim=1, keepdim=True)
        scale = torch.rsqrt(off.square().sum(dim=1, keepdim=True) + self.eps)
        if self.gain is not None:
            scale = scale * self.gain[:, None]
        return (off * scale).view_as(self.weight)


class WeightStandardizedLinear(_Standardized):
    """Scaled weight standardization of a linear layer; see WeightStandardizedConv2d.

    Args:
        in_features: inputs an example, two or more.
        out_features: outputs an example.
        bias, gain: whether it has one an output.
        eps: beside N times the variance of an output's weights.

    Raises:
        ValueError: one input; eps not above 0.

    >>> layer = WeightStandardizedLinear(3, 2)
    >>> layer(torch.ones(5, 3)).shape, bool(layer.standardized().sum(1).abs().max() < 1e-6)
    (torch.Size([5, 2]), True)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: bool = True,
        eps: float = 1e-4,
    ) -> None:
        super().__init__((out_features, in_features), bias=bias, gain=gain, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) → (…, out_features)."""
        return functional.linear(x, self.standardized(), self.bias)

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}"


class WeightStandardizedConv2d(_Standardized):
    """Scaled weight standardization of a convolution: ŵ = gain (w − mean) / √(N variance + eps).

    Mean and variance are those of an output's N weights [Qiao et al. 2019], scaled by 1/√N, with
    a gain an output [Brock, De, Smith, Simonyan 2021, Eq. 1]: what it gives stays as large as what
    it is given, without statistics of a batch or of an example. Exported, its weights are
    constants, and it is a plain convolution.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: (height, width), or one number for both.
        stride, padding, dilation: as of ``nn.Conv2d``; zeros pad.
        groups: of channels; N is in_channels / groups × height × width, two or more.
        bias, gain: whether it has one an output.
        eps: beside N times the variance of an output's weights.

    Raises:
        ValueError: groups that do not divide the channels; N = 1; eps not above 0.

    >>> layer = WeightStandardizedConv2d(3, 8, 3, padding=1)
    >>> layer(torch.ones(5, 3, 9, 9)).shape, [tuple(p.shape) for p in layer.parameters()]
    (torch.Size([5, 8, 9, 9]), [(8, 3, 3, 3), (8,), (8,)])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        *,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        gain: bool = True,
        eps: float = 1e-4,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"WeightStandardizedConv2d: groups = {groups}: must divide {in_channels} and "
                f"{out_channels} channels"
            )
        kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        shape = (out_channels, in_channels // groups, *kernel)
        super().__init__(shape, bias=bias, gain=gain, eps=eps)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, height, width) → (batch, out_channels, …)."""
        return functional.conv2d(
            x, self.standardized(), self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        return (
            f"{inputs * self.groups}, {outputs}, kernel_size={tuple(kernel)}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )
