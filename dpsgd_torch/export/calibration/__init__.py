"""What is done to a float graph and its ranges before it becomes integers, of no private data."""
