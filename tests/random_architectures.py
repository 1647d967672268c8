"""Random small architectures of the layers that people use, in the ways in which they use them.

Hypothesis draws a plan, a list of steps; ``built`` makes it a model. A step takes whatever shape
comes and leaves one that the next can take, so that every plan is a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

ROWS, CLASSES, MOST = 4, 3, 400  # of values in a row: beyond, the next step makes them fewer
BEGINNINGS = [(5,), (3, 4), (2, 3, 3), (4, 6), (4, 5, 5), (2, 4, 4, 4), "words"]
CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose1d, 3: nn.ConvTranspose2d, 4: nn.ConvTranspose3d}
INSTANCE_NORMS = {2: nn.InstanceNorm1d, 3: nn.InstanceNorm2d, 4: nn.InstanceNorm3d}
Shape = tuple[int, ...]
Draw = Callable[[Any], Any]


class Apply(nn.Module):
    """A function of what comes in, and of layers and parameters that are kept by name."""

    def __init__(self, function: Callable[..., torch.Tensor], **kept: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in kept.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


class Wrapped(nn.Module):
    """A step inside: added to what comes in, recomputed, beside it, or by itself."""

    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "checkpoint":
            return checkpoint(self.inner, x, use_reentrant=False)
        out = self.inner(x)
        if out.shape != x.shape or self.how == "alone":
            return out
        if self.how == "in place":
            out = out.clone() if out is x else out
            out += x
            return out
        return x + out if self.how == "sum" else torch.cat([x, out], -1)


def _linear(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    return nn.Linear(shape[-1], draw(st.integers(1, 5)), bias=draw(st.booleans()))


def _weight_norm(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    return weight_norm(nn.Linear(shape[-1], draw(st.integers(1, 5))))


def _convolution(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    kind, size = CONVOLUTIONS.get(len(shape)), min(shape[1:], default=0)
    if kind is None:
        return None
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if shape[0] % g == 0]))
    kernel = draw(st.integers(1, min(3, size)))
    dilation = draw(st.sampled_from([1, 2])) if 2 * (kernel - 1) < size else 1
    return kind(
        shape[0],
        groups * draw(st.integers(1, 2)),
        kernel,
        stride=draw(st.sampled_from([1, 1, 2])),
        padding=draw(st.integers(0, min(kernel, size) - 1)),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    )


def _transposed(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    kind = TRANSPOSED.get(len(shape))
    if kind is None:
        return None
    groups = draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
    more = {"stride": draw(st.integers(1, 2)), "groups": groups, "bias": draw(st.booleans())}
    return kind(shape[0], 2 * groups, draw(st.integers(1, 3)), **more)


def _norm(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    kinds = [lambda: nn.LayerNorm(shape[-1]), lambda: nn.RMSNorm(shape[-1])]
    kinds += [lambda: nn.LayerNorm(shape), lambda: nn.PReLU()]
    if len(shape) > 1:
        groups = 2 if shape[0] % 2 == 0 else 1
        kinds += [lambda: nn.GroupNorm(groups, shape[0]), lambda: nn.PReLU(shape[0])]
    if len(shape) in INSTANCE_NORMS and min(shape[1:]) > 1:
        kinds.append(lambda: INSTANCE_NORMS[len(shape)](shape[0], affine=True))
    return draw(st.sampled_from(kinds))()


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    lambda: nn.ReLU(inplace=True),
    lambda: nn.SiLU(inplace=True),
    lambda: nn.Hardtanh(-0.5, 0.5, inplace=True),
    lambda: nn.LeakyReLU(0.2, inplace=True),
    nn.Tanh,
    nn.GELU,
    lambda: Apply(lambda self, x: x.mul_(0.5)),
    lambda: Apply(lambda self, x: x.masked_fill_(x < 0, 0.1)),
    lambda: Apply(lambda self, x: x.sigmoid_()),
]


def _activation(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    return draw(st.sampled_from(ACTIVATIONS))()


ARRANGED: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: x.transpose(1, -1),
    lambda x: x.transpose(1, -1).contiguous(),
    lambda x: x.transpose(1, -1).contiguous().transpose(1, -1),
    lambda x: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x,
    lambda x: x.repeat_interleave(2, -1)[..., ::2],
    lambda x: x.unsqueeze(1).expand(-1, 2, *x.shape[1:]).flatten(1, 2) if x.ndim > 2 else x,
    lambda x: x.flip(-1),
]


def _arranged(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    move = draw(st.sampled_from(ARRANGED))
    return Apply(lambda self, x: move(x))


def _fewer(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    if len(shape) < 2:
        return None
    if len(shape) == 3 and min(shape[1:]) > 1 and draw(st.booleans()):
        return draw(st.sampled_from([lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2)]))()
    return Apply(lambda self, x: x.mean(-1) if x.ndim > 2 else x)


def _recurrent(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    if len(shape) != 2:
        return None
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    first, both = draw(st.booleans()), draw(st.booleans())
    cells = kind(shape[1], 3, batch_first=first, bidirectional=both)
    if first:
        return Apply(lambda self, x: self.cells(x)[0], cells=cells)
    return Apply(lambda self, x: self.cells(x.transpose(0, 1))[0].transpose(0, 1), cells=cells)


def _attention(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    if len(shape) != 2:
        return None
    width = shape[1]
    if draw(st.booleans()):
        heads = 2 if width % 2 == 0 else 1
        attention = nn.MultiheadAttention(width, heads, batch_first=True)
        shown = draw(st.booleans())
        return Apply(
            lambda self, x: self.attention(x, x, x, need_weights=shown)[0], attention=attention
        )

    def attend(self: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.all(x).unsqueeze(1).chunk(3, -1)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)

    return Apply(attend, all=nn.Linear(width, 3 * width))


def _raw(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module:
    kinds: list[Callable[[], nn.Module]] = [
        lambda: Apply(lambda self, x: x * self.scale, scale=nn.Parameter(torch.randn(shape[-1]))),
        lambda: Apply(lambda self, x: x + self.table, table=nn.Parameter(torch.randn(shape))),
        lambda: Apply(lambda self, x: x @ self.w, w=nn.Parameter(torch.randn(shape[-1], 3))),
        lambda: Apply(lambda self, x: x * self.gain.exp(), gain=nn.Parameter(torch.randn(1))),
    ]
    return draw(st.sampled_from(kinds))()


def _again(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    """A layer that was used, or only its weight, once more."""
    fits = [m for m in past if isinstance(m, nn.Linear) and m.in_features == shape[-1]]
    if not fits:
        return None
    layer = draw(st.sampled_from(fits))
    ways = ["layer", "function", "product", "back"]
    ways += ["tied"] if "weight" in layer._parameters else []
    how = draw(st.sampled_from(ways))
    if how == "layer":
        return layer
    if how == "tied":
        other = nn.Linear(layer.in_features, layer.out_features)
        other.weight = layer.weight
        return other
    if how == "function":
        return Apply(lambda self, x: functional.linear(x, self.layer.weight), layer=layer)
    if how == "back":
        return Apply(lambda self, x: self.layer(x).tanh() @ self.layer.weight, layer=layer)
    return Apply(lambda self, x: x @ self.layer.weight.T, layer=layer)


def _other_rows(draw: Draw, shape: Shape, past: list[nn.Module]) -> nn.Module | None:
    """A layer that sees steps in the place of examples, or before them."""
    if len(shape) < 2:
        return None
    layer = nn.Linear(shape[-1], 3)
    if draw(st.booleans()):
        return Apply(
            lambda self, x: self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]), layer=layer
        )
    return Apply(lambda self, x: self.layer(x.transpose(0, 1)).transpose(0, 1), layer=layer)


STEPS = {
    "linear": _linear,
    "weight_norm": _weight_norm,
    "convolution": _convolution,
    "transposed": _transposed,
    "norm": _norm,
    "activation": _activation,
    "arranged": _arranged,
    "fewer": _fewer,
    "recurrent": _recurrent,
    "attention": _attention,
    "raw": _raw,
    "again": _again,
    "other_rows": _other_rows,
}
OFTEN = ["linear", "convolution", "convolution", "norm", "activation", "activation", "again"]
HOW = ["alone", "alone", "alone", "sum", "in place", "beside", "checkpoint"]


@st.composite
def architectures(draw: Draw) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], list[str]]:
    """(model, (inputs, targets), what is in it), in float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    beginning = draw(st.sampled_from(BEGINNINGS))
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 999)))
        model, x, names = _drawn(draw, beginning, generator)
    for p in model.parameters():
        p.data.uniform_(-1, 1, generator=generator)
    return model, (x, torch.randint(CLASSES, (ROWS,), generator=generator)), names


def _drawn(
    draw: Draw, beginning: Any, generator: torch.Generator
) -> tuple[nn.Module, torch.Tensor, list[str]]:
    steps, past, names = nn.Sequential(), list[nn.Module](), [str(beginning)]
    if beginning == "words":
        x: torch.Tensor = torch.randint(6, (ROWS, 4), generator=generator)
        steps.append(nn.Embedding(6, 4, padding_idx=draw(st.sampled_from([None, 0]))).double())
    else:
        x = torch.randn(ROWS, *beginning, generator=generator, dtype=torch.float64)
        steps.append(Apply(lambda self, x: x.clone()))  # what is done in place spares the data
    for _ in range(draw(st.integers(2, 7))):
        shape = _shape(steps, x)
        wide = shape.numel() > MOST
        kind = "fewer" if wide else draw(st.sampled_from([*STEPS, *OFTEN]))
        step = STEPS[kind](draw, shape, past)
        if step is None:
            continue
        how = "alone" if wide else draw(st.sampled_from(HOW))
        steps.append(step.double() if how == "alone" else Wrapped(step.double(), how))
        if not _runs(steps, x):
            steps = steps[:-1]
            continue
        past.append(step)
        names.append(kind if how == "alone" else f"{kind} {how}")
    width = _shape(steps, x).numel()
    return steps.append(nn.Flatten()).append(nn.Linear(width, CLASSES).double()), x, names


def _runs(steps: nn.Module, x: torch.Tensor) -> bool:
    """torch refuses some operations in place, and norms of a single value."""
    try:
        return _shape(steps, x).numel() > 0
    except (RuntimeError, ValueError):
        return False


def _shape(steps: nn.Module, x: torch.Tensor) -> torch.Size:
    with torch.no_grad():
        return steps(x[:1].clone())[0].shape
