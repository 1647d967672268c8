"""What a step costs on a cluster: computing, messages, sums, noise and memory, by formula.

A step of P processes over B examples and M trained parameters takes

    compute    B/P examples, at the seconds one takes; more processes than cores share them
    fixed      what each process does once a step, whatever the batch
    messages   4 small exchanges, each of P − 1 hops
    sums       8 bytes a parameter: sent in parts, added up in the order of ranks, and gathered by
               rank 0, through whose link 2 × 8 M (P − 1)/P bytes go
    release    4 bytes a parameter from rank 0 to all, in ⌈log₂ P⌉ rounds
    noise      M numbers, drawn by rank 0 while the others wait

Where noise is drawn by blocks, each process adds up, draws and hands round a P-th part instead:

    messages   5 exchanges, one of them in place of the word that goes with what rank 0 releases
    sums       4 bytes a parameter (8 where a share goes through the model in pieces), sent in parts
    release    4 bytes a parameter, of which each process has a P-th part
    noise      M/P numbers, and half a block more at either end of a part

and a process holds 4 bytes a parameter for the weights, 4 for what is released, 8 for its sums, 8
for them laid in a row, 4 for each value of the optimizer, and its physical batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accountant import calibrate_noise, dpsgd_event, dpsgd_steps
from accountant.errors import check

EXCHANGES = 4  # small ones in a step
SINGLE, DOUBLE = 4, 8  # bytes
BLOCK = 1 << 16  # numbers drawn from one key
STATES = {"sgd": 0, "momentum": 1, "adam": 2}  # values that an optimizer keeps of a parameter


@dataclass(frozen=True)
class Link:
    """Between processes: seconds a hop of a small message, and bytes a second."""

    latency: float
    bandwidth: float
    measured: str


LINKS = {
    "local": Link(1.7e-4, 1.2e9, "gloo between processes of one machine, measured here"),
    "ethernet": Link(2e-4, 1.1e9, "10 Gbit/s, from its name alone"),
    "infiniband": Link(3e-5, 2.2e10, "200 Gbit/s, from its name alone"),
    "nvlink": Link(2e-5, 2e11, "NVLink within a machine, from its name alone"),
}
NOISES = {  # seconds a number
    "numpy": (1.5e-8, "on one core, rounding and checks included, measured here"),
    "blocks": (1.5e-8, "as numpy's, each process its part"),
    "philox": (1e-9, "on a GPU, from its memory's bandwidth alone"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A model, its batch, and where it is to be trained; seconds, bytes and counts."""

    parameters: int
    batch_size: int
    example_seconds: float  # of a private step, in one process
    fixed_seconds: float = 2e-3
    link: Link = LINKS["local"]
    noise_seconds: float = NOISES["numpy"][0]
    noise_in_parts: bool = False  # by blocks: each process draws its own
    optimizer: str = "sgd"
    frozen: int = 0  # parameters that are not trained
    example_bytes: int = 0  # of what a pass holds for one
    physical_batch_size: int = 128
    cores: int | None = None  # that all processes share; None: as many as processes

    def __post_init__(self) -> None:
        for name in ("parameters", "batch_size", "physical_batch_size"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "must be ≥ 1")
        for name in ("example_seconds", "noise_seconds", "fixed_seconds"):
            value = getattr(self, name)
            check(0 <= value < math.inf, name, value, "must be a number of seconds ≥ 0")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of a step of so many processes, part by part, and bytes that one of them holds."""

    processes: int
    compute: float
    fixed: float
    messages: float
    sums: float
    release: float
    noise: float
    memory: int

    @property
    def step(self) -> float:
        """Seconds of all parts together."""
        return sum(getattr(self, part) for part in PARTS)


PARTS = ("compute", "fixed", "messages", "sums", "release", "noise")


def cost(plan: Plan, processes: int) -> Cost:
    """What one step costs.

    >>> plan = Plan(parameters=1_000_000, batch_size=1000, example_seconds=1e-3)
    >>> one, four = cost(plan, 1), cost(plan, 4)
    >>> one.compute, four.compute, one.sums
    (1.0, 0.25, 0.0)
    >>> 3.5 < one.step / four.step < 4
    True
    """
    check(processes >= 1, "processes", processes, "must be ≥ 1")
    size, link = plan.parameters, plan.link
    turns = max(1.0, processes / plan.cores) if plan.cores else 1.0
    others = (processes - 1) / processes
    rows = min(plan.physical_batch_size, math.ceil(plan.batch_size / processes))
    held = SINGLE * (size + plan.frozen) + size * (
        SINGLE + DOUBLE + (DOUBLE if processes > 1 else 0) + SINGLE * STATES[plan.optimizer]
    )
    parts = plan.noise_in_parts and processes > 1
    exchanges = EXCHANGES + parts
    sums = SINGLE if parts and rows * processes >= plan.batch_size else (1 + (not parts)) * DOUBLE
    rounds = others if parts else math.ceil(math.log2(processes))
    drawn = min(size, size / processes + BLOCK) if parts else size
    return Cost(
        processes=processes,
        compute=turns * plan.batch_size / processes * plan.example_seconds,
        fixed=turns * plan.fixed_seconds,
        messages=turns * exchanges * link.latency * (processes - 1),
        sums=sums * size * others / link.bandwidth,
        release=SINGLE * size * rounds / link.bandwidth,
        noise=drawn * plan.noise_seconds,
        memory=held + rows * plan.example_bytes,
    )


def table(plan: Plan, sizes: tuple[int, ...], steps: int | None = None) -> str:
    """A line for each number of processes: seconds, gain, efficiency, memory."""
    one = cost(plan, 1).step
    head = f"{'processes':>9}" + "".join(f"{part:>10}" for part in PARTS)
    lines = [f"{head}{'step':>10}{'gain':>8}{'efficiency':>11}{'memory':>10}"]
    lines[0] += f"{'whole run':>11}" if steps else ""
    for size in sizes:
        found = cost(plan, size)
        row = f"{size:>9}" + "".join(f"{_time(getattr(found, part)):>10}" for part in PARTS)
        row += f"{_time(found.step):>10}{one / found.step:>8.2f}{one / found.step / size:>11.0%}"
        row += f"{_bytes(found.memory):>10}" + (f"{_time(steps * found.step):>11}" if steps else "")
        lines.append(row)
    return "\n".join(lines)


def promised(
    plan: Plan, *, dataset_size: int, epochs: float, epsilon: float, delta: float
) -> tuple[int, float]:
    """Steps, and the noise multiplier at which they cost ε; neither hangs on the processes."""
    run = {"dataset_size": dataset_size, "batch_size": plan.batch_size}
    steps = dpsgd_steps(**run, epochs=epochs)
    noise = calibrate_noise(
        epsilon, delta, lambda sigma: [(dpsgd_event(**run, noise_multiplier=sigma), steps)]
    )
    return steps, noise


def advice(plan: Plan, sizes: tuple[int, ...]) -> str:
    """What takes longest besides computing, where the most processes are no longer worth it."""
    last = cost(plan, max(sizes))
    if last.compute >= last.step / 2:
        return ""
    part = max(PARTS[1:], key=lambda name: getattr(last, name))
    remedy = {
        "noise": "each process its part (--noise-generator blocks), or draw it on the device "
        "(philox), train fewer parameters (LoRA), "
        "or take a larger batch",
        "sums": "a faster link, fewer trained parameters, or a larger batch",
        "release": "a faster link, fewer trained parameters, or a larger batch",
        "messages": "fewer processes, or a larger batch",
        "fixed": "fewer processes, or a larger batch",
    }[part]
    return f"at {max(sizes)} processes most of a step is not computing; first {part}: {remedy}"


def _time(seconds: float) -> str:
    for unit, size, least in (("h", 3600, 7200), ("min", 60, 120), ("s", 1, 1)):
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
