"""``dpsgd``, or ``python -m dpsgd_torch``: every command's door."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from dpsgd_torch.errors import shown
from dpsgd_torch.version import __version__

_DOORS = {  # command: where it is
    "train": "dpsgd_torch.train",
    "search": "dpsgd_torch.search",
    "export": "dpsgd_torch.export.__main__",
    "audit": "dpsgd_torch.audit.__main__",
    "plan": "dpsgd_torch.plan",
    "advise": "dpsgd_torch.advise",
}
_ACCOUNTS = (
    *("epsilon", "delta", "noise", "steps", "correlated"),
    *("risk", "ledger", "compare", "plot"),
)
_HELP = """\
usage: dpsgd COMMAND …

Train PyTorch models with differential privacy, and stand behind the ε.

a model, from data to a chip:
  train     train a preset with privacy; leaves a folder with report, statement and ledger
  search    choose hyper-parameters on private data, inside one ε
  export    carry a finished run to ONNX, TensorFlow Lite or C for a microcontroller
  audit     replay a finished run against its guarantee, or attack any training function
  plan      what a step and a run take on 1, 2, 4, … processes, before it is begun
  advise    settings for n records and a budget ε, and how much accuracy they would keep

what it costs, before or after:
  epsilon   ε of a run
  noise     the least noise that keeps a run within ε
  steps     the most steps that keep a run within ε
  delta     δ of a run at a given ε
  correlated ε, sensitivity and error of noise that is correlated between steps
  risk      what any attacker gains from a run, or from what a ledger holds
  ledger    ε of what a run's ledger says was released
  compare   ε of a run by every method, ours and others'
  plot      draw δ against ε, and ε against steps

examples:
  dpsgd train --preset digits --epsilon 3
  dpsgd train --resume runs/NAME
  dpsgd search --preset digits --epsilon 3 --trials 20
  dpsgd export runs/NAME --to c --check
  dpsgd epsilon --n 60000 --batch-size 250 --noise-multiplier 1.3 --epochs 15 --delta 1e-5
  dpsgd noise   --n 60000 --batch-size 250 --epochs 15 --epsilon 1.18 --delta 1e-5

dpsgd COMMAND --help explains a command's flags; dpsgd --version tells the version. Each command is
also there as python -m: dpsgd_torch.train, .search, .export, .audit, .plan, .advise;
accountant for ε.
Answers go to stdout, warnings to stderr; what is refused is one line and exit status 2.

Your own model and data, from Python: dpsgd_torch.Trainer.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: the command's own; 2 where there is no such command."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, rest = (words[0], words[1:]) if words else ("", [])
    if command in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if command in ("-V", "--version"):
        print(f"dpsgd_torch {__version__}")
        return 0
    if command in _DOORS:
        status: int = import_module(_DOORS[command]).main(rest)
        return status
    if command in _ACCOUNTS:
        from accountant.__main__ import main as answer

        return answer(words, prog="dpsgd")
    return _refuse(command)


def _refuse(command: str) -> int:
    known = (*_DOORS, *_ACCOUNTS)
    near = difflib.get_close_matches(command, known, 1)
    meant = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(known)}"
    given = shown(command) if command else "none"
    print(f"error: command = {given}: {meant}; see dpsgd --help", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
