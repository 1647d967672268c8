"""Hyper-parameter search whose own cost is inside ε."""
