"""Export of a run: its folder opened, its model and what is promised of it."""
