"""Per-example gradients: clipped sums that are autograd's, or a refusal."""
