#!/usr/bin/env bash
# torch 2.13.0: one torch.autocast around a whole training loop goes on with the weights it began
# with: the forward pass reads casts that were kept before the optimizer stepped.
#
# Expected: each forward pass uses the parameters as they are, or a cast of a parameter that was
#   changed in place is made anew (its version counter has moved).
# Seen: the output after the optimizer's step is that before it, bit for bit; with an autocast around
#   each forward pass, or with cache_enabled=False, it is not.
# The casts are kept until the outermost autocast ends: all steps inside take gradients at the weights
# of the first, and nothing says so.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/python -W ignore - <<'PY'
import sys

import torch


def outputs(inside_out, **options):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 3), torch.rand(2, 4)
    optimizer, seen = torch.optim.SGD(layer.parameters(), lr=1.0), []

    def step():
        y = layer(x)
        seen.append(y.detach().clone())
        optimizer.zero_grad()
        y.float().square().sum().backward()
        optimizer.step()

    cast = lambda: torch.autocast("cpu", torch.bfloat16, **options)
    if inside_out:
        for _ in range(2):
            with cast():
                step()
    else:
        with cast():
            step()
            step()
    return torch.equal(*seen)


print(f"torch {torch.__version__}")
around, each, uncached = outputs(False), outputs(True), outputs(False, cache_enabled=False)
print(f"outputs alike after a step: around the loop {around}, each pass {each}, no cache {uncached}")
sys.exit(0 if (around, each, uncached) == (True, False, False) else "behaves otherwise now")
PY
