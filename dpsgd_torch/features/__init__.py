"""Features of images and sound that rest on no private data: fixed transforms, made-up images."""
