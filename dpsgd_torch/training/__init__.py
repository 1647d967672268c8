"""The private part: sampling, clip, noise, checkpoint, loop."""
