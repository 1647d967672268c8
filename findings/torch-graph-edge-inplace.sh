#!/usr/bin/env bash
# torch 2.13.0: a module's output that a forward hook keeps stands, after an in-place operation, for
# another place in the graph, and torch.autograd.grad differentiates there without a word.
#
# Expected: torch.autograd.grad(loss, kept) is the gradient at the linear layer's output, from which
#   its weight's follows, or an error, as when a value that backward needs was overwritten.
# Seen, as the difference of kept's gradient, times the layer's input, from the weight's own:
#     nn.ReLU(inplace=False)  kept tensor 0.0, gradient edge 0.0, tensor hook 0.0
#     nn.ReLU(inplace=True)   kept tensor 4.4, gradient edge 0.0, tensor hook 0.0
#   The kept tensor *is* the activation's output by then, so autograd is consistent; the surprise is
#   that it is silent, and that a tensor hook, set on the same tensor at the same time, and
#   torch.autograd.graph.get_gradient_edge, taken in the hook, both stay at the layer's output.
# Per-example gradients built from kept outputs are wrong for every nn.ReLU(inplace=True).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import sys

import torch
from torch import nn

print(f"torch {torch.__version__}")
as_told = True
for inplace in (False, True):
    torch.manual_seed(0)
    linear, images, weights = nn.Linear(3, 4), torch.randn(5, 3), torch.randn(5, 4)
    kept, edge, hooked = [], [], []

    def keep(module, inputs, output):
        kept.append(output)
        edge.append(torch.autograd.graph.get_gradient_edge(output))
        output.register_hook(hooked.append)

    linear.register_forward_hook(keep)
    loss = (nn.Sequential(linear, nn.ReLU(inplace=inplace))(images) * weights).sum()
    right, = torch.autograd.grad(loss, linear.weight, retain_graph=True)
    at = {
        "kept tensor": torch.autograd.grad(loss, kept, retain_graph=True)[0],
        "gradient edge": torch.autograd.grad(loss, edge, retain_graph=True)[0],
        "tensor hook": hooked[0],
    }
    off = {name: (grad.T @ images - right).abs().max().item() for name, grad in at.items()}
    print(f"inplace={inplace!s:5}", ", ".join(f"{name} {value:.1f}" for name, value in off.items()))
    for name, value in off.items():
        as_told &= value > 0.1 if inplace and name == "kept tensor" else value < 1e-5
sys.exit(0 if as_told else "not as the head says")
PY
