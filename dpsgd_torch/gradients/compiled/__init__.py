"""One traced and compiled pass: losses, gradients by example, norms, clipped sums."""
