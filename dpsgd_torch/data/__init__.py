"""Data: what records a run trains on, one kind a file; base.py is the interface."""
