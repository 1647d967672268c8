"""What ε covers of exported files, in words, after the statement of the run."""

from __future__ import annotations

import textwrap


def exported(names: list[str], *, integers: bool, private_ranges: bool) -> str:
    """A paragraph for the files' own statement.txt.

    >>> print(exported(["model.onnx"], integers=False, private_ranges=False))
    <BLANKLINE>
    Exported: model.onnx. Covered by ε: these files hold the weights and nothing else
    that depends on the records.
    <BLANKLINE>
    """
    files = ", ".join(names)
    if private_ranges:
        words = (
            f"Exported: {files}. NOT covered by ε: --calibrate-on-private-data took the ranges of "
            "activations from the training records, and the scales in these files are computed "
            "from them. Do not publish them; export again without the flag."
        )
    else:
        words = (
            f"Exported: {files}. Covered by ε: these files hold the weights and nothing else that "
            "depends on the records."
        )
        if integers:
            words += (
                " Scales come from the declared input range, carried through the weights, and from "
                "inputs made up without the data."
            )
    return "\n" + textwrap.fill(words, 88) + "\n"
