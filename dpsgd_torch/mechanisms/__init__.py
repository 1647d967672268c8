"""Laplace, exponential mechanism and randomized response: what is released, and what it costs."""
