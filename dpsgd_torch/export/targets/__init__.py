"""What a model can be made into: a file a target."""
