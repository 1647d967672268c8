"""Operators with all that is to be known of each: one file a kind."""
