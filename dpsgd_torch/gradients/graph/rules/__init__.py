"""Node rules: what a backward node's output gradient says about parameters, a kind a file.

A file of its own is one import more below.
"""

from dpsgd_torch.gradients.graph.rules import convolution, matmul  # registers its nodes

__all__ = ["convolution", "matmul"]
