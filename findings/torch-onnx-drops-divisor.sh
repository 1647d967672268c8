#!/usr/bin/env bash
# torch 2.13.0, onnxscript 0.7.2, onnxruntime 1.32.0: torch.onnx.export writes average pooling with a
# divisor_override as average pooling without one.
#
# Expected: the file computes what the module computes, or the export refuses the setting, as it does
#   others that ONNX's AveragePool cannot say.
# Seen: no error and no warning, of AvgPool2d, AvgPool3d and F.avg_pool2d alike. A 2×2 window of ones
#   with divisor_override=3 gives 4/3 in torch and 1 from the file; with divisor_override=1, which is
#   the usual way to ask for sums, 4 and 1.
# Only verify=True, which is off by default, tells: it logs that an output differs by much.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
venv/bin/python - <<'PY'
import contextlib
import io
import sys
import warnings
from importlib.metadata import version

import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F


class Called(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 2, divisor_override=3)


def answers(module, dimensions):
    """(torch's, the file's), and every warning that speaks of what was dropped."""
    inputs = torch.ones(1, 1, *[2] * dimensions)
    told = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(told):
        warnings.simplefilter("always")
        exported = torch.onnx.export(module.eval(), (inputs,), dynamo=True)
    said = [str(one.message) for one in caught] + [told.getvalue()]
    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString())
    (out,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return module(inputs).item(), out.item(), [one for one in said if "divisor" in one]


print("torch", torch.__version__, "onnxscript", version("onnxscript"))
seen = []
for name, module, dimensions in (
    ("AvgPool2d(2)", nn.AvgPool2d(2), 2),
    ("AvgPool2d(2, divisor_override=3)", nn.AvgPool2d(2, divisor_override=3), 2),
    ("AvgPool2d(2, divisor_override=1)", nn.AvgPool2d(2, divisor_override=1), 2),
    ("AvgPool3d(2, divisor_override=3)", nn.AvgPool3d(2, divisor_override=3), 3),
    ("F.avg_pool2d(x, 2, divisor_override=3)", Called(), 2),
):
    ours, files, said = answers(module, dimensions)
    print(f"{name:40} torch {ours:.4f}   file {files:.4f}   said of it: {said or 'nothing'}")
    seen.append((round(ours, 4), round(files, 4), said))
expected = [(1.0, 1.0), (1.3333, 1.0), (4.0, 1.0), (2.6667, 1.0), (1.3333, 1.0)]
sys.exit(0 if seen == [(*pair, []) for pair in expected] else "not as the head says")
PY
