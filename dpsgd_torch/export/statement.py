"""What ε covers of exported files, in words, after the statement of the run."""

from __future__ import annotations

import textwrap

from dpsgd_torch.export.promise import Promised


def exported(
    names: list[str],
    *,
    promised: Promised,
    integers: bool,
    private_ranges: bool = False,
    given_ranges: bool = False,
) -> str:
    """A paragraph for the files' own statement.txt.

    >>> print(exported(["model.onnx"], promised="records", integers=False))
    <BLANKLINE>
    Exported: model.onnx. Covered by ε: these files hold the weights and nothing else
    that depends on the records.
    <BLANKLINE>
    """
    words = f"Exported: {', '.join(names)}. {_COVERED[promised]}"
    if private_ranges:
        words = (
            f"Exported: {', '.join(names)}. NOT covered by ε: --calibrate-on-private-data took the "
            "ranges of activations from the training records, and the scales in these files are "
            "computed from them. Do not publish them; export again without the flag."
        )
    elif integers:
        words += (
            " Scales come from the declared input range, carried through the weights, and from "
            + (
                "inputs that were given as public."
                if given_ranges
                else "inputs made up without the data."
            )
        )
    return "\n" + textwrap.fill(words, 88) + "\n"


_COVERED: dict[Promised, str] = {
    "records": "Covered by ε: these files hold the weights and nothing else that depends on the "
    "records.",
    "labels": "Covered by ε, as far as labels go: these files hold the weights and nothing else "
    "that depends on the records; the weights were trained on the inputs as they are.",
    "unstated": "What ε covers is not stated: these files hold the weights and nothing else of the "
    "records.",
    "nothing": "No ε covers them: these files hold the weights, trained without privacy, and "
    "nothing else that depends on the records.",
}
