"""The command line: ``python -m accountant``."""
