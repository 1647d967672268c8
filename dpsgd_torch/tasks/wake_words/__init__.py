"""Whether a person is in the picture."""
