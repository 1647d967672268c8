"""Samplers: who is in a batch, what that law costs, and how it is told. One kind, one file."""
