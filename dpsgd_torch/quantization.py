"""Quantisation-aware training: the forward pass of int8, differentiated straight through.

The fake quantisation of [Jacob et al. 2018, Sec. 3] as a board will compute it: weights symmetric
and by output channel, and what each linear or convolutional layer reads in 256 steps of one range.
The rounding counts as the identity in the backward pass [Bengio et al. 2013]; what lies outside its
range is cut off and sends no gradient.

No observer watches the examples. A range is a function of the weights as they are and of inputs
that are public or made up, taken anew in each forward pass and kept nowhere, so that no example
reaches another's output through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn import functional

from dpsgd_torch.errors import ModelError, shown, told

ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d)
MADE_UP = 32
"""Inputs, from which ranges are taken unless others are given."""

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_RESHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, *_DROPOUTS)
_RESHAPES = ("flatten", "view", "reshape", "unsqueeze", "squeeze")
_WIDER = 0.25  # as dpsgd_torch.export.ranges has it
_LEAST = 1e-30  # of a scale

Ranges = dict[str, tuple[torch.Tensor, torch.Tensor]]


def quantization_aware(
    model: nn.Module,
    input_shape: Sequence[int],
    input_range: tuple[float, float],
    made_up_inputs: torch.Tensor | None = None,
) -> QuantizationAware:
    """A model's quantisation-aware twin, of the same parameters under the same names.

    ε is what it is without: per-example gradients are clipped as ever, whatever function they are
    of, so the sensitivity is the clip norm; and ranges come from the weights, which ε covers, and
    from inputs that are nobody's. In floats a value that stands at the edge between two steps can
    fall to either side in a batch of another size, as it can at a ReLU's kink: such edges are 255
    times as many, and what turns on one is a 255th.

    Args:
        model: any module that ``torch.fx`` can trace, with one input; its parameters are shared,
            not copied.
        input_shape: of one example, without the batch.
        input_range: (low, high) between which every input value lies, declared.
        made_up_inputs: (count, *input_shape), public or made up, never private records: ranges
            are taken from them, each time the model is called. None: 32 made from shape and range.

    Raises:
        ModelError: a model that cannot be traced or rounds nothing; inputs of another shape.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> aware = quantization_aware(model, (4,), (0.0, 1.0))
    >>> aware(torch.ones(3, 4)).shape, list(aware.state_dict()) == list(model.state_dict())
    (torch.Size([3, 2]), True)
    """
    if made_up_inputs is None:
        from dpsgd_torch.export.synthetic import synthetic_inputs

        made_up_inputs = synthetic_inputs(MADE_UP, tuple(input_shape), input_range)
    if made_up_inputs.shape[1:] != torch.Size(input_shape) or not len(made_up_inputs):
        raise ModelError(
            f"made_up_inputs = {tuple(made_up_inputs.shape)}: must be (count, *{input_shape})"
        )
    return QuantizationAware(model, input_range, made_up_inputs)


class QuantizationAware(nn.Module):
    """What ``quantization_aware`` makes."""

    def __init__(
        self, model: nn.Module, input_range: tuple[float, float], made_up_inputs: torch.Tensor
    ) -> None:
        super().__init__()
        self._plain, self.input_range = [model], input_range
        self.traced = _traced(model)
        self.given = _as_given(self.traced, dict(model.named_modules()))
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        parameter = next(model.parameters())
        made_up = made_up_inputs.detach().clamp(*input_range)
        made_up = made_up.to(parameter.device, parameter.dtype)
        self.register_buffer("_made_up_inputs", made_up, persistent=False)
        self.ranges()  # refused now rather than in training

    @property
    def plain(self) -> nn.Module:
        """The model itself, which rounds nothing: of these parameters, in this mode."""
        return self._plain[0].train(self.training)

    @property
    def made_up_inputs(self) -> torch.Tensor:
        """What ranges are taken from."""
        return cast("torch.Tensor", self._made_up_inputs)

    def ranges(self) -> Ranges:
        """(low, high) of what each rounded layer reads, by its call's name in the trace.

        Those that read the input itself are left out: its range is declared.
        """
        watched = _Watched(self, {}, self.input_range)
        with torch.no_grad():
            watched.run(self.made_up_inputs)
        return watched.ranges

    def forward(self, inputs: torch.Tensor) -> Any:
        """What the board will answer, but for the order in which it rounds."""
        return _Rounded(self, self.ranges(), self.input_range).run(inputs)


def fake_quantized(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Values in [low, high], which holds zero, to 8 bits; gradient 1 inside and 0 outside.

    >>> ends = torch.tensor(-1.0), torch.tensor(1.55)
    >>> fake_quantized(torch.tensor([-2.0, 0.004, 0.017, 9.0]), *ends)
    tensor([-1.0000,  0.0000,  0.0200,  1.5500])
    """
    scale = ((high - low) / 255).clamp(min=_LEAST)
    zero = torch.round(-128 - low / scale).clamp(-128, 127)
    cut = torch.minimum(torch.maximum(x, (-128 - zero) * scale), (127 - zero) * scale)
    return cut + (torch.round(cut / scale) * scale - cut).detach()


def fake_quantized_weights(weights: torch.Tensor) -> torch.Tensor:
    """By output channel to whole numbers in [−127, 127] times a scale; gradient 1.

    >>> fake_quantized_weights(torch.tensor([[1.27, 0.014], [0.0, 0.0]]))
    tensor([[1.2700, 0.0100],
            [0.0000, 0.0000]])
    """
    fixed = weights.detach()
    largest = fixed.abs().flatten(1).amax(1).reshape(-1, *[1] * (weights.dim() - 1))
    scale = (largest / 127).clamp(min=_LEAST)
    return weights + (torch.round(fixed / scale) * scale - fixed)


class _Rounded(fx.Interpreter):
    """The model as a board computes it."""

    def __init__(
        self, model: QuantizationAware, ranges: Ranges, input_range: tuple[float, float]
    ) -> None:
        super().__init__(model, graph=model.traced)
        self.ranges, self._given, self._input_range = ranges, model.given, input_range

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        x = super().placeholder(target, args, kwargs)
        low, high = (x.new_tensor(end) for end in self._input_range)
        return fake_quantized(x, low.clamp(max=0), high.clamp(min=0))

    def run_node(self, n: fx.Node) -> Any:
        layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(layer, ROUNDED):
            return super().run_node(n)
        (x,), _ = self.fetch_args_kwargs_from_env(n)
        x = x if n.name in self._given else self.read(n.name, x)
        weights = fake_quantized_weights(layer.weight)
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weights, layer.bias)
        return layer._conv_forward(x, weights, layer.bias)

    def read(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """What a layer reads, rounded."""
        return fake_quantized(x, *self.ranges[name])


class _Watched(_Rounded):
    """The same on made-up inputs, from which ranges are taken on the way."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(self.fetch_attr(target), _DROPOUTS):
            return args[0]
        return super().call_module(target, args, kwargs)

    def read(self, name: str, x: torch.Tensor) -> torch.Tensor:
        self.ranges[name] = _with_margin(x)
        return super().read(name, x)


def _with_margin(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As an export chooses them."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    margin = _WIDER * (high - low)
    return torch.where(low < 0, low - margin, low), high + margin


def _as_given(graph: fx.Graph, layers: dict[str, nn.Module]) -> frozenset[str]:
    """The calls of layers that read the input itself, but for its shape."""
    found: set[str] = set()
    given: set[fx.Node] = set()
    for node in graph.nodes:
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        name = getattr(node.target, "__name__", node.target)
        reshapes = isinstance(layer, _RESHAPING) or (layer is None and name in _RESHAPES)
        if node.op == "placeholder" or (reshapes and node.args[0] in given):
            given.add(node)
        elif isinstance(layer, ROUNDED) and node.args[0] in given:
            found.add(node.name)
    return frozenset(found)


def _traced(model: nn.Module) -> fx.Graph:
    """Each layer a node.

    Raises:
        ModelError: what its forward does depends on values, or none of its layers is rounded.
    """
    name = type(model).__name__
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # the user's own code
        raise ModelError(
            f"model = {name}: torch.fx cannot trace it ({told(error)}); quantisation-aware "
            "training takes models whose forward does not branch on values"
        ) from error
    layers = dict(model.named_modules())
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    if not any(isinstance(layers.get(str(target)), ROUNDED) for target in called):
        raise ModelError(
            f"model = {name}: calls no Linear, Conv1d or Conv2d as a layer of its own, so nothing "
            "would be rounded; put a lone layer into nn.Sequential"
        )
    for node in graph.nodes:
        if node.op == "call_function" and "dropout" in getattr(node.target, "__name__", ""):
            raise ModelError(
                f"model = {name}: calls {shown(node.target.__name__)} as a function, which would "
                "be traced in one mode for good; use nn.Dropout"
            )
    if any(node.op == "placeholder" for node in list(graph.nodes)[1:]):
        raise ModelError(f"model = {name}: takes several inputs; quantisation-aware takes one")
    return graph


def plain_of(model: nn.Module) -> nn.Module:
    """The model that is exported: of a quantisation-aware one, what it is the twin of."""
    return model.plain if isinstance(model, QuantizationAware) else model
