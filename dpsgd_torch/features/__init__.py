"""Features of images that rest on no private data: fixed transforms, and made-up images."""
