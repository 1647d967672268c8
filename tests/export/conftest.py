"""What every export here would do anew is done once."""

import functools

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="session", autouse=True)
def _operators_are_read_once():
    """torch.onnx parses the source of its 500 operators in each export: two thirds of its time.

    What comes of it depends on the opset alone, and nobody changes it.
    """
    once = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield
