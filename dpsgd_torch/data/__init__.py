"""Data: what records a run trains on."""
