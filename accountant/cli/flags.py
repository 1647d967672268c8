"""The command line's flags, and the words of its help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from accountant.calibration import WIDTH
from accountant.cli import commands as answers
from accountant.cli.correlated import correlated
from accountant.cli.risk import risk, tpr_at_fpr
from accountant.dpsgd import Sampler
from accountant.errors import one_line
from accountant.events import Relation
from accountant.factorization.kinds import KINDS
from accountant.methods import METHODS

_EXAMPLES = """\
examples:
  RUN="--n 60000 --batch-size 250 --delta 1e-5"
  python -m accountant epsilon $RUN --epochs 15 --noise-multiplier 1.3 --statement
  python -m accountant noise   $RUN --epochs 15 --epsilon 1
  python -m accountant noise   $RUN --epochs 15 --tpr-at-fpr 0.02@0.001
  python -m accountant risk runs/NAME/ledger.sqlite
  python -m accountant ledger runs/NAME/ledger.sqlite --delta 1e-5
  python -m accountant correlated $RUN --epochs 15 --epsilon 1 --bands 16
  python -m accountant plot    $RUN --epochs 15 --noise-multiplier 1.3 --out curve.png

Batches are Poisson samples (each record joins with probability batch size / n) and neighbours
differ by adding or removing one record, unless --sampler and --relation say otherwise. Answers go
to stdout, warnings to stderr; bad input is one line and exit status 2. COMMAND --help explains
the flags.
"""


def refuse(message: str) -> int:
    """Say in one line what is wrong; returns the exit status."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(refuse(f"{message}; see {self.prog} --help"))


def parser(prog: str = "python -m accountant") -> argparse.ArgumentParser:
    """The whole command line; each command leaves its function in ``answer``."""
    whole = _Parser(
        prog=prog,
        description="What DP-SGD costs: the ε of a run, or the run for an ε, with proof.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, words: str, *parts: _Parser) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=list(parts), help=words, description=words + ".")
        elsewhere = {"risk": risk, "correlated": correlated}
        added.set_defaults(answer=elsewhere.get(name) or getattr(answers, name))
        return added

    run, length, noise, delta, method = _run(), _length(), _noise(), _delta(), _method()
    epsilon = command("epsilon", "ε of a run", run, length, noise, delta, method)
    epsilon.add_argument(
        "--statement",
        action="store_true",
        help="say in full what is promised and what not, what an attacker gains, and what the run "
        "would be worth with other batches or neighbours",
    )
    at_epsilon = command("delta", "δ of a run at a given ε", run, length, noise, method)
    at_epsilon.add_argument("--epsilon", type=float, required=True, help="ε ≥ 0")
    _bound(
        command(
            "noise",
            "the least noise that keeps a run within ε, or an attacker below a bound",
            run,
            length,
            _delta(required=False),
            method,
        )
    )
    _target(
        command(
            "steps",
            "the most steps that keep a run within ε",
            run,
            noise,
            delta,
            method,
        )
    )
    recorded = command(
        "ledger", "ε of what a run's ledger, or a list of events, says was released", delta,
        method,
    )  # fmt: skip
    recorded.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help='a run\'s ledger.sqlite, or JSON: [{"type": "laplace", "noise_multiplier": 10, '
        '"count": 3}, …]',
    )
    _risk(
        command(
            "risk",
            "what any attacker gains from a run, or from what a ledger holds",
            _run(required=False),
            _length(required=False),
            _noise(required=False),
        )
    )
    _correlated(
        command(
            "correlated",
            "ε of correlated noise, or the noise for an ε, and the error of its prefix sums",
            length,
            delta,
        )
    )
    compare = command(
        "compare",
        "ε of a run by every method of ours and of each library that is "
        "installed, with the time it takes",
        run,
        length,
        noise,
        delta,
    )
    compare.add_argument(
        "--limit",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="stop a library after so long (default 60)",
    )
    compare.add_argument("--json", action="store_true", help="one JSON object on stdout")
    plot = command("plot", "draw δ against ε, and ε against steps", run, length, noise, delta)
    plot.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.png",
        help="picture to write: png, pdf or svg by its ending",
    )
    return whole


def _part() -> _Parser:
    return _Parser(add_help=False)


_SAMPLERS = {
    sampler.value
    + (":NUMBER" if sampler in (Sampler.TRUNCATED, Sampler.ALLOCATION) else ""): sampler
    for sampler in Sampler
}


def _sampler(text: str) -> tuple[Sampler, int | None]:
    name, colon, number = text.partition(":")
    found = _SAMPLERS.get(name + (":NUMBER" if colon else ""))
    if found is None or (colon and not (number.isdecimal() and int(number) >= 1)):
        raise argparse.ArgumentTypeError(f"{text}: must be one of {', '.join(_SAMPLERS)}")
    return found, int(number) if colon else None


def _run(required: bool = True) -> _Parser:
    part = _part()
    part.add_argument("--n", type=int, required=required, help="records in the training set")
    part.add_argument("--batch-size", type=int, required=required, help="expected batch size")
    part.add_argument(
        "--microbatch-size",
        type=int,
        default=1,
        help="examples averaged before each clip; above 1 the noise counts for half (default 1)",
    )
    part.add_argument(
        "--sampler",
        type=_sampler,
        default=(Sampler.POISSON, None),
        metavar="{" + ",".join(_SAMPLERS) + "}",
        help="how batches are drawn: Poisson samples; of a fixed size without replacement; "
        "shuffled epochs, for which no amplification is claimed; Poisson samples of which at most "
        "NUMBER are kept; balls in bins, each record in one batch of an epoch; or each record in "
        "NUMBER batches of so many epochs (default poisson)",
    )
    _relation(part, "Poisson samples")
    part.add_argument(
        "--group-size", type=int, default=1, help="records a person may hold (default 1)"
    )
    return part


def _length(required: bool = True) -> _Parser:
    part = _part()
    length = part.add_mutually_exclusive_group(required=required)
    length.add_argument("--epochs", type=float, help="passes over the data, in expectation")
    length.add_argument("--steps", type=int, help="steps, instead of epochs")
    return part


def _noise(required: bool = True) -> _Parser:
    part = _part()
    part.add_argument(
        "--noise-multiplier", type=float, required=required, help="noise deviation / clip norm"
    )
    return part


def _delta(required: bool = True) -> _Parser:
    part = _part()
    part.add_argument("--delta", type=float, required=required, help="δ; keep it below 1/n")
    return part


def _method() -> _Parser:
    part = _part()
    words = "; ".join(f"{name}: {meaning}" for name, meaning in METHODS.items())
    part.add_argument("--method", choices=METHODS, default="exact", help=f"{words} (default exact)")
    _interval(part)
    return part


def _interval(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--width",
        type=float,
        default=WIDTH,
        help=f"of the exact interval, relative to ε (default {WIDTH:g})",
    )
    part.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _relation(part: argparse.ArgumentParser, sampled: str) -> None:
    part.add_argument(
        "--relation",
        choices=[Relation.ADD_OR_REMOVE_ONE.value, Relation.REPLACE_ONE.value],
        help=f"which data sets are neighbours (default: add_or_remove_one for {sampled}, else "
        "replace_one, under which the noise counts for half)",
    )


def _target(part: argparse.ArgumentParser) -> None:
    part.add_argument("--epsilon", type=float, required=True, help="the ε not to pass")


def _bound(part: argparse.ArgumentParser) -> None:
    bound = part.add_mutually_exclusive_group(required=True)
    bound.add_argument("--epsilon", type=float, help="the ε not to pass, at --delta")
    bound.add_argument(
        "--advantage", type=float, help="the most of an attacker's true less false positives"
    )
    bound.add_argument(
        "--tpr-at-fpr",
        type=tpr_at_fpr,
        metavar="TPR@FPR",
        help="the most true positives at a false-positive rate, such as 0.02@0.001",
    )


def _risk(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a run's ledger.sqlite, or a JSON list of events, in place of the run's flags",
    )
    part.add_argument(
        "--fpr", type=float, nargs="+", metavar="RATE", help="false-positive rates (0.001 0.01 0.1)"
    )
    part.add_argument(
        "--prior", type=float, default=0.5, help="probability of membership before (default 0.5)"
    )
    part.add_argument(
        "--chance",
        type=float,
        nargs="+",
        metavar="P",
        help="probabilities to guess a secret without the release (0.5 0.1 0.01 0.0001)",
    )
    part.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _correlated(part: argparse.ArgumentParser) -> None:
    part.add_argument("--n", type=int, required=True, help="records in the training set")
    part.add_argument("--batch-size", type=int, required=True, help="expected batch size")
    noise = part.add_mutually_exclusive_group(required=True)
    noise.add_argument(
        "--noise-multiplier",
        type=float,
        help="deviation of the independent noise below / (sensitivity × clip norm)",
    )
    noise.add_argument("--epsilon", type=float, help="the ε not to pass, instead")
    part.add_argument(
        "--bands", type=int, help="of the factor, or buffers of blt (default 16, of blt 3)"
    )
    part.add_argument("--kind", choices=KINDS, default="bandmf", help="of factor (default bandmf)")
    part.add_argument(
        "--sampling",
        choices=["cyclic", "none"],
        default="cyclic",
        help="cyclic: one part of the records after the other, each a Poisson sample; none: whole "
        "passes in batches (default cyclic)",
    )
    part.add_argument(
        "--passes",
        choices=["fixed", "reshuffled"],
        help="without sampling: batches in the same order in each pass, or shuffled afresh "
        "(default fixed)",
    )
    _relation(part, "cyclic sampling")
    _interval(part)
