"""Spoken keywords, one second each."""
