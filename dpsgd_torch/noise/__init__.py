"""Noise: what is added to a step's sum, what that costs, and how it is told. One kind, one file."""
