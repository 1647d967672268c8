"""Made-up images: drawn by rules from a seed, none from data."""
