"""``python -m dpsgd_torch.audit``: replay a finished run, or attack a training function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dpsgd_torch.audit import command
from dpsgd_torch.errors import RunError
from dpsgd_torch.shell import Parser, called, in_one_line, loading


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = Parser(
        "audit",
        RunError,
        description="Replay a finished run: every step's batch and noise are drawn again from "
        "private/ and held against the law that its ledger charged.",
        epilog=f"{command.FLAG} module:function attacks somebody's own training function instead, "
        f"of any library; see {called('audit')} {command.FLAG} --help. What a replay finds rests "
        "on private/, which no ε covers: it is shown here, and kept in private/audit.json alone. "
        "Exit status: 0 nothing contradicts the guarantee, 1 something does, 2 refused.",
    )
    made.add_argument("run", type=Path, help="the run's folder (of one fold: NAME/fold-1)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 sound, 1 a fault was found, 2 refused (one line on stderr says why)."""
    faults: list[str] = []

    def story() -> None:
        words = list(sys.argv[1:] if argv is None else argv)
        if any(word.partition("=")[0] == command.FLAG for word in words):
            faults.extend(command.audit(words))
            return
        options = parser().parse_args(argv)
        with loading():
            from dpsgd_torch.audit.replayed import replay
            from dpsgd_torch.storage.run_folder import RunFolder

        folder = RunFolder(options.run)
        if not folder.path.is_dir():
            raise RunError(f"run = {folder.path}: there is no such folder; name that of a run")
        report = replay(folder)
        print(f"local, not covered by ε:\n{report}")
        folder.write_json("private/audit.json", report.to_json())
        faults.extend(report.faults)

    return in_one_line(story) or (1 if faults else 0)


if __name__ == "__main__":
    sys.exit(main())
