"""Texts: which of some labels each has, or its next token."""
