"""Before the first charge: what could go wrong in a step is tried, and refused by name."""
