"""Per-example gradients read off the graph that autograd built: no hook, any model."""
