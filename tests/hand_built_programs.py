"""The two models of the project with random weights, and corners that random draws miss."""

import itertools

import numpy as np

from dpsgd_torch.export.program import (
    Conv2D,
    Dense,
    MaxPool2D,
    Program,
    Requantization,
    Softmax,
    Step,
    Tensor,
    Window,
)


def dense_step(rng: np.random.Generator, inputs: int, outputs: int, worst: bool = False) -> Step:
    """``worst``: every weight ±127, and half of the channels +127 throughout."""
    weights = _weights(rng, (outputs, inputs), worst)
    operation = Dense(
        weights, np.ones(outputs, np.float32), _bias(rng, outputs), _how(rng, inputs, outputs)
    )
    return Step(operation, _tensor(rng, (outputs,)))


def conv_step(
    rng: np.random.Generator,
    source: tuple[int, int, int],
    outputs: int,
    window: Window,
    worst: bool = False,
) -> Step:
    depth = source[2] * window.kernel[0] * window.kernel[1]
    weights = _weights(rng, (outputs, *window.kernel, source[2]), worst)
    how = _how(rng, depth, outputs)
    operation = Conv2D(weights, np.ones(outputs, np.float32), _bias(rng, outputs), how, window)
    shape = tuple(
        (side + sum(padding) - kernel) // stride + 1
        for side, kernel, stride, padding in zip(
            source[:2], window.kernel, window.stride, window.padding, strict=True
        )
    )
    return Step(operation, _tensor(rng, (*shape, outputs)))


def gesture_program(seed: int = 0) -> Program:
    """714-50-15-2 with softmax."""
    rng = np.random.default_rng(seed)
    softmax = Step(Softmax(1 << 30, 24, -62), Tensor((2,), 1 / 256, -128))
    steps = (
        dense_step(rng, 714, 50),
        dense_step(rng, 50, 15),
        dense_step(rng, 15, 2),
        softmax,
    )
    return Program(_tensor(rng, (714,)), steps, {"epsilon": "3.0"}, ("hi", "sup"))


def mnist_program(seed: int = 0) -> Program:
    """The tutorials' CNN."""
    rng = np.random.default_rng(seed)
    first = conv_step(rng, (28, 28, 1), 16, Window((8, 8), (2, 2), ((3, 3), (3, 3))))
    pool = Step(MaxPool2D(Window((2, 2))), _like(first.output, (13, 13, 16)))
    second = conv_step(rng, (13, 13, 16), 32, Window((4, 4), (2, 2)))
    small = Step(MaxPool2D(Window((2, 2))), _like(second.output, (4, 4, 32)))
    steps = (first, pool, second, small, dense_step(rng, 512, 32), dense_step(rng, 32, 10))
    return Program(_tensor(rng, (28, 28, 1)), steps)


def corner_programs() -> dict[str, Program]:
    """Name → program."""
    rng = np.random.default_rng(7)
    source = _tensor(rng, (9, 9, 20))

    def chain(shape: tuple[int, ...], *steps: Step) -> Program:
        return Program(_tensor(rng, shape), steps)

    def dense(*sizes: int, worst: bool = True) -> Program:
        steps = (dense_step(rng, a, b, worst) for a, b in itertools.pairwise(sizes))
        return chain((sizes[0],), *steps)

    programs = {f"dense_{size}": dense(size, 3) for size in (1, 2, 3, 4, 5, 7, 16, 714, 1201, 2050)}
    programs |= {f"outputs_{size}": dense(9, size) for size in range(1, 10)}
    programs["long_rows_in_the_arena"] = dense(3, 1203, 5, 2)
    programs["long_windows"] = Program(
        source, (conv_step(rng, source.shape, 6, Window((6, 6)), True),)
    )
    programs["rows_in_place"] = chain(
        (9, 9, 20),
        conv_step(rng, (9, 9, 20), 16, Window((1, 1))),
        conv_step(rng, (9, 9, 16), 8, Window((4, 4))),
        conv_step(rng, (6, 6, 8), 24, Window((2, 2))),
    )
    window = Window((3, 3), (1, 1), ((1, 1), (1, 1)))
    programs["wider_than_its_input"] = chain(
        (5, 6, 3),
        conv_step(rng, (5, 6, 3), 4, window),
        conv_step(rng, (5, 6, 4), 13, window),
        conv_step(rng, (5, 6, 13), 5, Window((2, 3), (2, 1))),
    )
    programs["depthwise_29"] = _depthwise_of_29(rng)
    return programs


def _depthwise_of_29(rng: np.random.Generator) -> Program:
    """Three eights, a four and one; factors that are powers of two, so that halves are many."""
    how = Requantization(np.full(29, 2**30, np.int32), np.full(29, -5, np.int32), -100, 90)
    steps: list[Step] = []
    for window in (Window((3, 3), (1, 1), ((1, 1), (1, 1))), Window((3, 2), (2, 1))):
        conv = Conv2D(
            _weights(rng, (29, *window.kernel, 1), False),
            np.ones(29, np.float32), _bias(rng, 29), how, window, 29,
        )  # fmt: skip
        shape = (6, 5, 29) if not steps else (2, 4, 29)
        steps.append(Step(conv, _tensor(rng, shape)))
    return Program(_tensor(rng, (6, 5, 29)), tuple(steps))


def _how(rng: np.random.Generator, depth: int, outputs: int) -> Requantization:
    """Factors that spread the sums over the range of int8."""
    multiplier = rng.integers(2**30, 2**31, outputs).astype(np.int32)
    shift = round(np.log2(60 / (5000 * np.sqrt(depth))))
    return Requantization(multiplier, np.full(outputs, shift, np.int32))


def _weights(rng: np.random.Generator, shape: tuple[int, ...], worst: bool) -> np.ndarray:
    if not worst:
        return np.clip(np.round(rng.normal(0, 35, shape)), -127, 127).astype(np.int8)
    weights = rng.choice([-127, 127], shape).astype(np.int8)
    weights[: (shape[0] + 1) // 2] = 127
    return weights


def _bias(rng: np.random.Generator, outputs: int) -> np.ndarray:
    return rng.integers(-3000, 3000, outputs).astype(np.int32)


def _tensor(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return Tensor(shape, float(np.float32(0.05)), int(rng.integers(-128, 128)))


def _like(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return Tensor(shape, tensor.scale, tensor.zero_point)
