#!/usr/bin/env bash
# opacus 1.6.0 with torch 2.13.0: nn.Embedding(padding_idx=0) gives row 0 a per-example gradient.
#
# Expected: grad_sample is zero in the padding row, as autograd's gradient is: torch's documentation
#   says that the row takes no part in the gradient. ModuleValidator accepts the layer.
# Seen (two examples, with 2 and 3 of their 4 tokens padding; norms):
#     autograd's gradient of row 0     0
#     grad_sample of row 0             4.97 and 4.64, of the examples' whole 5.88 and 5.19
#   In every other row grad_sample sums to autograd's gradient, and force_functorch=True gives zero.
# So padding counts towards each example's norm, which is clipped the harder for it, and a step moves
# the row that should stand still.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 scipy==1.17.1 opacus==1.6.0
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
import sys

import opacus
import torch
from opacus.validators import ModuleValidator

print(f"opacus {opacus.__version__}, torch {torch.__version__}")
tokens = torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]])


def gradients(functorch):
    torch.manual_seed(0)
    layer = torch.nn.Embedding(5, 6, padding_idx=0)
    assert ModuleValidator.validate(layer) == []
    wrapped = opacus.GradSampleModule(layer, loss_reduction="sum", force_functorch=functorch)
    (wrapped(tokens) * torch.randn(2, 4, 6)).sum().backward()
    return layer.weight.grad, layer.weight.grad_sample


as_told = True
for functorch in (False, True):
    grad, each = gradients(functorch)
    padding = [f"{norm:.2f}" for norm in each[:, 0].norm(dim=1).tolist()]
    apart = (each.sum(0) - grad)[1:].abs().max().item()
    print(f"functorch {functorch!s:5} padding row: autograd {grad[0].norm():.2f}, per example", *padding,
          f"(whole examples {each[0].norm():.2f} {each[1].norm():.2f}; other rows differ by {apart:.0e})")
    zero = not each[:, 0].any()
    as_told &= not grad[0].any() and apart < 1e-5 and zero == functorch
sys.exit(0 if as_told else "not as the head says")
PY
