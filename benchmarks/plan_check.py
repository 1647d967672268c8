"""Does ``dpsgd plan`` foresee what 2 and 4 processes take on this machine?

benchmarks/distributed.py times one private step in one process and over 2 and 4; the formula is
given the one figure that it asks for (what an example takes in one process) and the cores that
there are. Of the clock, and of the busiest rank's processor: where others use the machine, the
clock has their share in it, and what processes that share a core wait for is no processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from model_zoo import made

from dpsgd_torch.app.cluster import Plan, cost

DISTRIBUTED = Path(__file__).with_name("distributed.py")


def main() -> None:
    options = parse()
    cores = len(os.sched_getaffinity(0))
    for model in options.models:
        parameters = sum(p.numel() for p in made(model, 1)[0].parameters())
        print(f"{model}, {parameters} parameters, {cores} cores")
        for size in options.processes:
            found = measured(model, size, options.rounds)
            for how in ("by the clock", "of the busiest processor"):
                print(compared(found, how, parameters, size, cores), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["mnist_cnn", "hf_llama"], help="(mnist_cnn hf_llama)")
    add("--processes", type=int, nargs="+", default=[2, 4], help="(2 4)")
    add("--rounds", type=int, default=15, help="timed rounds (15)")
    return parser.parse_args()


def measured(model: str, size: int, rounds: int) -> dict[str, Any]:
    command = [sys.executable, str(DISTRIBUTED), "--models", model, "--json"]
    command += ["--processes", str(size), "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(found: dict[str, Any], how: str, parameters: int, size: int, cores: int) -> str:
    """Milliseconds foreseen and measured, of one number of processes."""
    times, batch = found[how]["milliseconds"], found["batch"]
    alone = Plan(parameters=parameters, batch_size=batch, example_seconds=0.0)
    rest = cost(alone, 1).step  # what a step takes besides its examples
    plan = Plan(
        parameters=parameters,
        batch_size=batch,
        example_seconds=max(0.0, times["private, one"] / 1000 - rest) / batch,
        noise_in_parts=True,
        cores=cores if how == "by the clock" else None,
    )
    foreseen, seen = 1000 * cost(plan, size).step, times["private, all"]
    return (
        f"  {size} processes, {how}: one takes {times['private, one']:.1f} ms; foreseen "
        f"{foreseen:.1f} ms, measured {seen:.1f} ms, error {foreseen / seen - 1:+.1%}"
    )


if __name__ == "__main__":
    main()
