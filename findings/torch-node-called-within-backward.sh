#!/usr/bin/env bash
# torch 2.13.0: a backward node called by hand while a backward pass runs leaves out, without a word,
# gradients that it gives when called outside of one.
#
# Expected: node(grad) is a function of grad and of what the node saved: the same wherever it is called.
# Seen, for y = x.tanh() + w, node = y.grad_fn, as the gradients that node(grad) returns for (x, w):
#     called after the pass                                     x: shape (4, 3)   w: shape (4, 3)
#     called in the node's own pre-hook, in grad(y.sum(), x)    x: shape (4, 3)   w: None
#   The node asks the graph task that runs around it which inputs that one needs, though it is not the
#   task that calls it. None is also what a node returns for an input that has no gradient, so code that
#   takes None for zero (as autograd does) is silently wrong.
# A per-example gradient taken from nodes as backward passes them must wait until the pass is over.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import sys

import torch

print(f"torch {torch.__version__}")
x, w = torch.randn(4, 3, requires_grad=True), torch.randn(3, requires_grad=True)
y = x.tanh() + w
node, within = y.grad_fn, []


def called(gradients):
    within.extend(node(gradients[0]))


handle = node.register_prehook(called)
torch.autograd.grad(y.sum(), x, retain_graph=True)
handle.remove()
outside = node(torch.ones(4, 3))
for where, found in (("within", within), ("outside", outside)):
    print(where, [None if gradient is None else tuple(gradient.shape) for gradient in found])
as_told = within[0] is not None and within[1] is None and None not in outside
sys.exit(0 if as_told else "not as the head says")
PY
