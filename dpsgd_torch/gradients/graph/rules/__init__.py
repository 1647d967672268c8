"""Node rules: what a backward node's output gradient says about parameters, a kind a file.

A file of its own is one import more below.
"""

from dpsgd_torch.gradients.graph.rules import (
    elementwise,  # each registers its nodes
    embedding,
    matmul,
    normalization,
    products,
    shaping,
)

__all__ = ["elementwise", "embedding", "matmul", "normalization", "products", "shaping"]
