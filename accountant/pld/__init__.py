"""The exact accountant: an interval that provably holds ε."""
