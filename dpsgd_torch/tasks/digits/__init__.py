"""scikit-learn's 8×8 digits."""
