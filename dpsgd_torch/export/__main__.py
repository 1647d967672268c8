"""``python -m dpsgd_torch.export``: parse, export, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.target import CALIBRATIONS
from dpsgd_torch.export.targets.registry import TARGETS
from dpsgd_torch.shell import Parser, in_one_line, loading


def parser() -> argparse.ArgumentParser:
    """The flags, in the order a user meets them."""
    targets = "\n".join(f"  {name:15} {kind.about}" for name, kind in TARGETS.items())
    parser = Parser(
        "export",
        ExportError,
        description="Carry a trained model to other runtimes and to microcontrollers.\n\n"
        f"targets:\n{targets}",
        epilog="Ranges of activations come from the declared input range and from synthetic "
        "inputs, made without the data, so ε covers the files as it covers the weights.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the folder of a finished run, or of trainer.save")
    add("--to", choices=TARGETS, required=True, help="what to make")
    add("--int8", action=argparse.BooleanOptionalAction, default=None,
        help="integers (default for header; C has nothing else, in whatever package)")  # fmt: skip
    add("--calibration", choices=CALIBRATIONS,
        help="; ".join(f"{name}: {text}" for name, text in CALIBRATIONS.items())
        + " (default: improved for MLPerf Tiny's classifiers, else plain)")  # fmt: skip
    add("--check", action="store_true",
        help="compare torch, integers, TensorFlow Lite Micro, C and emulated boards")  # fmt: skip
    add("--cost", action="store_true",
        help="flash, RAM and instructions by layer, as a table and in cost.html and cost.svg, and "
        "milliseconds and µJ on named boards, estimated (c and arduino)")  # fmt: skip
    add("--inputs", type=int, default=400, metavar="N",
        help="how many held-out inputs to check with (default: 400)")  # fmt: skip
    add("--out", type=Path, metavar="FOLDER", help="where to (default: RUN/export/TARGET)")
    add("--every", type=int, metavar="SAMPLES",
        help="arduino: a sketch that listens, and answers every so many samples")  # fmt: skip
    add("--data-dir", type=Path, metavar="FOLDER", help="where the run's data lies, for --check")
    add("--calibrate-on-private-data", action="store_true",
        help="take ranges from the training records: a release that ε does NOT cover")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a check found a difference, 2 refused (one line says why)."""
    alike = True

    def story() -> None:
        nonlocal alike
        given = vars(parser().parse_args(argv))
        with loading():  # torch takes its time: after --help
            from dpsgd_torch.app.export.job import Order, export

        alike = export(Order(**given), print)

    status = in_one_line(story, interrupted="interrupted; nothing half-written is left")
    return status or int(not alike)


if __name__ == "__main__":
    sys.exit(main())
