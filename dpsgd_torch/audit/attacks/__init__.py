"""Attacks on a training function, ours or anybody's: from data and a seed to what is released."""
