"""Dominating pairs: the two distributions an event's worst neighbours lie between."""
