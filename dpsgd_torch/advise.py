"""``python -m dpsgd_torch.advise``: what n and ε would take: settings, and what they would keep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpsgd_torch.errors import ConfigError
from dpsgd_torch.shell import Parser, in_one_line, whole_number

_ABOUT = """\
Batch, steps, noise multiplier, clip norm and learning rate for n records and a budget ε, and how
much they would keep of the accuracy above chance that the model reaches without noise.

No data is opened: the rules were fitted to private trainings on made-up rows, and the answer says
how far they were off on cases that they had not seen (docs: What would it take?). Noise is exact:
the accountant prices the suggested run, and its upper end is at most ε.

  dpsgd advise --n 60000 --epsilon 3                     a linear head on 400 features
  dpsgd advise --n 2000 --epsilon 1 --features 60 --classes 4 --plot trade-off.png
  dpsgd advise --n 20000 --epsilon 3 --model my_net.py:make --input-shape 1 28 28 --minutes 5
"""
_MODELS = """\
A model is one of: --features, the project's best use of a small budget (docs: As much accuracy as
an ε buys); --model, called with nothing, whose gradients are looked at on made-up rows of
--input-shape; --parameters, where there is no model yet.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused (one line on stderr says why), 130 interrupted."""

    def story() -> None:
        given = parser().parse_args(argv)
        from dpsgd_torch.advice.answer import answer  # with the accountant: after --help

        print(answer(given))

    return in_one_line(story)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = Parser(
        "advise",
        ConfigError,
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    number: dict[str, Any] = {"type": whole_number(1), "metavar": "N"}
    add("--n", required=True, help="records, or persons if those are protected", **number)
    add("--epsilon", type=float, required=True, help="the whole run's")
    add("--delta", type=float, help="(1e-5, or a power of ten below 1/n)")
    model = made.add_argument_group("the model", _MODELS)
    which = model.add_mutually_exclusive_group()
    which.add_argument("--features", help="of a linear head, norm 4 (400)", **number)
    which.add_argument("--model", metavar="FILE.py:FUNCTION", help="makes your torch module")
    which.add_argument("--parameters", help="that are trained, of any other model", **number)
    model.add_argument("--classes", default=10, help="that are told apart (10)", **number)
    model.add_argument(
        "--input-shape", nargs="+", help="of one example, for --model (1 28 28)", **number
    )
    time = made.add_argument_group("time")
    time.add_argument("--minutes", type=float, help="that the steps may take on this machine (any)")
    time.add_argument(
        "--example-seconds", type=float, help="of a private step, instead of what is measured here"
    )
    add("--json", action="store_true", help="the answer as JSON")
    add("--plot", type=Path, metavar="FILE.png", help="draw what is lost by ε and by n")
    return made


if __name__ == "__main__":
    sys.exit(main())
