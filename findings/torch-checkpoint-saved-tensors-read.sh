#!/usr/bin/env bash
# torch 2.13.0: reading a saved tensor of a node inside torch.utils.checkpoint(use_reentrant=False) is
# not a read. Outside of a backward pass each one runs the whole region again; inside of one, the first
# makes the pass itself fail.
#
# Expected: node._saved_mat1 looks at what the node holds, as it does without a checkpoint.
# Seen, for a region of two linear layers, with a count of how often its function ran:
#     forward pass                                                   1
#     node._saved_mat1 read three times, no pass running             4
#     read once in a pre-hook of that node, within y.sum().backward()
#                                    CheckpointError: ... that was already unpacked once
#   Within a pass a value is kept for one reader, and the node comes second.
# Code that looks at saved tensors (profilers, graph printers, per-example gradients) changes time or
# outcome of a checkpointed model and of no other.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import sys

import torch
from torch.utils.checkpoint import CheckpointError, checkpoint

print(f"torch {torch.__version__}")
layer, runs = torch.nn.Linear(3, 3), []


def region(x):
    runs.append(1)
    return layer(layer(x).tanh()).tanh()


y = checkpoint(region, torch.randn(4, 3), use_reentrant=False)
node = y.grad_fn.next_functions[0][0]
counts = [len(runs)]
for _ in range(3):
    node._saved_mat1
counts.append(len(runs))
print(node.name(), "runs after forward and after three reads:", counts)


def read(gradients):
    node._saved_mat1


node.register_prehook(read)
failed = ""
try:
    y.sum().backward()
except CheckpointError as error:
    failed = str(error)
print("backward:", failed[:110] or "went through")
as_told = counts == [1, 4] and "already unpacked once" in failed
sys.exit(0 if as_told else "not as the head says")
PY
