"""Integer programs drawn at random, straight from the interface: extremes that no network shows."""

import numpy as np

from dpsgd_torch.export.program import (
    AveragePool2D,
    Conv2D,
    Dense,
    MaxPool2D,
    Pad,
    Program,
    Requantization,
    Rescale,
    Softmax,
    Step,
    Table,
    Tensor,
    Window,
)

KINDS = ("dense", "conv", "depthwise", "grouped", "max", "average", "rescale", "table", "pad")


def random_program(seed: int, steps: int = 5) -> Program:
    """A chain of up to so many steps; pictures until a dense layer flattens them."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        shape = (int(rng.integers(1, 90)),)
    else:
        shape = tuple(int(side) for side in rng.integers(1, 9, 3))
    tensor = first = _tensor(rng, shape)
    made: list[Step] = []
    for _ in range(int(rng.integers(1, steps + 1))):
        kinds = KINDS if len(tensor.shape) == 3 else ("dense", "rescale", "table")
        step = random_step(rng, str(rng.choice(kinds)), tensor)
        made.append(step)
        tensor = step.output
    if len(tensor.shape) == 1 and rng.random() < 0.5:
        made.append(_softmax(rng, tensor))
    return Program(first, tuple(made), {"epsilon": "1.0"}, ("a", "b"))


def random_step(rng: np.random.Generator, kind: str, source: Tensor) -> Step:
    """One operation that can follow."""
    low, high = sorted(int(x) for x in rng.integers(-128, 128, 2))
    if rng.random() < 0.6:
        low, high = -128, 127
    if kind == "dense":
        outputs = int(rng.integers(1, 12))
        weights = _weights(rng, (outputs, source.size))
        how = _requantization(rng, outputs, low, high)
        return Step(
            Dense(weights, _ones(outputs), _bias(rng, outputs), how), _tensor(rng, (outputs,))
        )
    if kind == "rescale":
        how = _requantization(rng, 1, low, high)
        return Step(Rescale(how), _tensor(rng, source.shape))
    if kind == "table":
        table = rng.integers(-128, 128, 256).astype(np.int8)
        return Step(Table(str(rng.choice(["tanh", "logistic"])), table), _tensor(rng, source.shape))
    height, width, channels = source.shape
    if kind == "pad":
        (a, b, c, d) = (int(side) for side in rng.integers(0, 3, 4))
        shape = (height + a + b, width + c + d, channels)
        return Step(Pad(((a, b), (c, d))), Tensor(shape, source.scale, source.zero_point))
    window = _window(rng, height, width)
    shape = tuple(
        (side + sum(padding) - kernel) // stride + 1
        for side, kernel, stride, padding in zip(
            (height, width), window.kernel, window.stride, window.padding, strict=True
        )
    )
    if kind in ("max", "average"):
        operation = (MaxPool2D if kind == "max" else AveragePool2D)(window, low, high)
        return Step(operation, Tensor((*shape, channels), source.scale, source.zero_point))
    groups = 1
    if kind == "depthwise":
        groups = channels
    elif kind == "grouped":
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    outputs = groups * int(rng.integers(1, 7))
    weights = _weights(rng, (outputs, *window.kernel, channels // groups))
    how = _requantization(rng, outputs, low, high)
    conv = Conv2D(weights, _ones(outputs), _bias(rng, outputs), how, window, groups)
    return Step(conv, _tensor(rng, (*shape, outputs)))


def random_inputs(program: Program, count: int, seed: int = 0) -> np.ndarray:
    """Uniform, and the two ends."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(-128, 128, (count, *program.input.shape)).astype(np.int8)
    inputs[0], inputs[-1] = -128, 127
    return inputs


def _softmax(rng: np.random.Generator, source: Tensor) -> Step:
    shift = int(rng.integers(20, 27))
    diff_min = -int(np.floor(31 * 2.0**26 / 2.0**shift))
    operation = Softmax(int(rng.integers(2**30, 2**31)), shift, diff_min)
    return Step(operation, Tensor(source.shape, 1 / 256, -128))


def _tensor(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    scale = float(np.float32(rng.uniform(0.001, 0.1)))
    return Tensor(shape, scale, int(rng.choice([-128, 0, rng.integers(-128, 128)])))


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    kind = rng.random()
    if kind < 0.1:
        return np.zeros(shape, np.int8)
    if kind < 0.2:
        return rng.choice([-127, 127], shape).astype(np.int8)
    return rng.integers(-127, 128, shape).astype(np.int8)


def _requantization(rng: np.random.Generator, outputs: int, low: int, high: int) -> Requantization:
    multiplier = rng.integers(2**30, 2**31, outputs).astype(np.int32)
    shift = -rng.integers(3, 12, outputs)
    if rng.random() < 0.1:
        shift = rng.integers(-3, 4, outputs)
    dead = rng.random(outputs) < 0.05
    multiplier[dead] = 0
    return Requantization(multiplier, np.where(dead, 0, shift).astype(np.int32), low, high)


def _bias(rng: np.random.Generator, outputs: int) -> np.ndarray:
    return rng.integers(-(2**14), 2**14, outputs).astype(np.int32)


def _ones(outputs: int) -> np.ndarray:
    return np.ones(outputs, np.float32)


def _window(rng: np.random.Generator, height: int, width: int) -> Window:
    kernel = (int(rng.integers(1, min(height, 5) + 1)), int(rng.integers(1, min(width, 5) + 1)))
    padding = ((0, 0), (0, 0))
    if rng.random() < 0.5:  # below the kernel, so that no window lies outside altogether
        sides = [tuple(int(p) for p in rng.integers(0, side, 2)) for side in kernel]
        padding = (sides[0], sides[1])
    return Window(kernel, (int(rng.integers(1, 4)), int(rng.integers(1, 4))), padding)
