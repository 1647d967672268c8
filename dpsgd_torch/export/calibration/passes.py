"""Which passes a float graph goes through on its way to integers, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dpsgd_torch.errors import ExportError
from dpsgd_torch.export.calibration.bias import bias_corrected
from dpsgd_torch.export.calibration.equalize import equalized
from dpsgd_torch.export.calibration.own_scale import with_own_scale
from dpsgd_torch.export.calibration.reach import REACHES
from dpsgd_torch.export.graph import Floats, Graph
from dpsgd_torch.export.ranges import Range, ranges
from dpsgd_torch.export.target import CALIBRATIONS


@dataclass(frozen=True)
class Calibration:
    """What is done before integers are made, each off or on; public or made-up inputs alone.

    Args:
        equalize: ``equalized``.
        own_scale: ``with_own_scale``.
        reach: of ranges, a name in ``REACHES``.
        correct_bias: ``bias_corrected``.
    """

    equalize: bool = False
    own_scale: bool = False
    reach: str = "margin"
    correct_bias: bool = False

    def __call__(
        self, graph: Graph, input_range: Range, public_inputs: Floats | None
    ) -> tuple[Graph, list[Range]]:
        """The graph to make integers of, and the ranges of its tensors."""
        seen = None
        if public_inputs is not None and len(public_inputs):
            seen = public_inputs.clip(*input_range)
        if self.equalize and seen is not None:
            graph = equalized(graph, seen)
        if self.own_scale:
            graph = with_own_scale(graph)
        found = ranges(graph, input_range, public_inputs, REACHES[self.reach])
        if self.correct_bias and seen is not None:
            graph = bias_corrected(graph, found, seen)
        return graph, found


PLAIN = Calibration()
_IMPROVED = Calibration(equalize=True, own_scale=True, reach="percentile")
_OF_NAME = {
    "plain": PLAIN,
    "improved": _IMPROVED,
    "all": replace(_IMPROVED, correct_bias=True),
}


def calibration_of(name: str) -> Calibration:
    """The one of that name.

    Raises:
        ExportError: none is.
    """
    if name not in CALIBRATIONS:
        raise ExportError(f"calibration = {name}: must be one of {', '.join(CALIBRATIONS)}")
    return _OF_NAME[name]
