"""Correlated noise: what a matrix factorization adds to prefix sums, and what it costs."""
