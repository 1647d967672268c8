"""Node rules: what a backward node's output gradient says about parameters, a kind a file.

A file of its own is one import more below.
"""

from dpsgd_torch.gradients.graph.rules import (  # each registers its nodes
    convolution,
    elementwise,
    embedding,
    matmul,
    normalization,
    products,
    shaping,
    weight_norm,
)

__all__ = [
    "convolution",
    "elementwise",
    "embedding",
    "matmul",
    "normalization",
    "products",
    "shaping",
    "weight_norm",
]
