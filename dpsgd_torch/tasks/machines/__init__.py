"""Sounds of machines, to tell when one is not as usual."""
