"""``python -m dpsgd_torch.plan``: what a run costs on so many processes, before it is begun."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.shell import Parser, in_one_line, whole_number

_ABOUT = """\
What a private step costs on 1, 2, 4, … processes: computing, messages, sums, noise, memory.

The one figure that must be measured is what an example takes in one process: divide the seconds of
a step by the batch size; a run tells its examples a second, and 1 over that is it.

  dpsgd plan --parameters 124e6 --batch-size 4096 --example-seconds 0.004 --link infiniband
  dpsgd plan --parameters 26010 --batch-size 1024 --example-seconds 1.2e-4 \\
             --n 60000 --epochs 15 --epsilon 3

Constants of gloo on one machine and of numpy's noise are measured (docs: Many machines); those of
faster links are from their names alone: give your own with --latency and --bandwidth.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""
    return in_one_line(lambda: print(_told(parser().parse_args(argv))))


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "plan",
        ConfigError,
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    number: dict[str, Any] = {"type": whole_number(0), "metavar": "N"}
    add("--parameters", required=True, help="that are trained", **number)
    add("--frozen", default=0, help="that are not (0)", **number)
    add("--batch-size", required=True, help="expected, over all processes", **number)
    add("--example-seconds", type=float, required=True, help="of a private step, in one process")
    add("--example-bytes", default=0, help="what a pass holds for one (0)", **number)
    add("--physical-batch-size", default=128, help="examples held at once (128)", **number)
    add("--optimizer", choices=("sgd", "momentum", "adam"), default="sgd", help="(sgd)")
    add("--processes", nargs="+", help="(1 2 4 … 64)", **number)
    add("--cores", help="that all processes share (one each)", **number)
    links = ("local", "ethernet", "infiniband", "nvlink")
    add("--link", choices=links, default="local", help="(local: gloo on one machine)")
    add("--latency", type=float, help="seconds of a small message's hop, instead of the link's")
    add("--bandwidth", type=float, help="bytes a second, instead of the link's")
    add(
        "--noise",
        choices=("numpy", "blocks", "philox"),
        default="numpy",
        help="what draws it (numpy)",
    )
    add("--noise-seconds", type=float, help="of one number, instead of that one's")
    run = parser.add_argument_group("the whole run, and what it costs in ε")
    run.add_argument("--n", help="records", **number)
    run.add_argument("--epochs", type=float)
    run.add_argument("--epsilon", type=float)
    run.add_argument("--delta", type=float, default=1e-5, help="(1e-5)")
    return parser


def _told(given: argparse.Namespace) -> str:
    from dpsgd_torch.app import cluster  # with the accountant: after --help

    link, (noise, how) = cluster.LINKS[given.link], cluster.NOISES[given.noise]
    own = {k: getattr(given, k) for k in ("latency", "bandwidth") if getattr(given, k) is not None}
    for name, value in own.items():
        if not value > 0:
            raise ConfigError(f"{name} = {value:g}: must be > 0")
    if own:
        link = dataclasses.replace(link, **own, measured="as given")
    noise, how = (noise, how) if given.noise_seconds is None else (given.noise_seconds, "as given")
    plan = cluster.Plan(
        parameters=given.parameters,
        frozen=given.frozen,
        batch_size=given.batch_size,
        example_seconds=given.example_seconds,
        example_bytes=given.example_bytes,
        physical_batch_size=given.physical_batch_size,
        optimizer=given.optimizer,
        cores=given.cores,
        link=link,
        noise_seconds=noise,
        noise_in_parts=given.noise == "blocks",
    )
    lines = [
        f"link: {link.latency:.2g} s a hop, {link.bandwidth / 1e9:.3g} GB/s ({link.measured})",
        f"noise: {1e9 * noise:.3g} ns a parameter ({how})",
    ]
    asked = {"n": given.n, "epochs": given.epochs, "epsilon": given.epsilon}
    missing = [name for name, value in asked.items() if value is None]
    steps = None
    if len(missing) < len(asked):
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} = None: the whole run needs n, epochs, epsilon"
            )
        steps, multiplier = cluster.promised(
            plan,
            dataset_size=given.n,
            epochs=given.epochs,
            epsilon=given.epsilon,
            delta=given.delta,
        )
        lines.append(
            f"{steps} steps with noise multiplier {multiplier:.4f} cost ε = {given.epsilon:g} at "
            f"δ = {given.delta!r}, on any number of processes"
        )
    sizes = tuple(given.processes or (1, 2, 4, 8, 16, 32, 64))
    lines += ["", cluster.table(plan, sizes, steps), cluster.advice(plan, sizes)]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    sys.exit(main())
