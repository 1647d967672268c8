"""Layer rules of the opacus engine: what its grad samplers need put right, a layer type a file.

A file of its own is one import more below. ``register`` takes a rule from anywhere.
"""

from dpsgd_torch.gradients.rules import (  # each registers its layer types
    convolution,
    embedding,
    layer_norm,
)

__all__ = ["convolution", "embedding", "layer_norm"]
