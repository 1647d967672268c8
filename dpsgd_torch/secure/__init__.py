"""Secure mode: a cryptographic generator, and noise that is exact to the last bit."""
