"""Settings for n, ε, parameters and time, by laws that were measured on made-up data."""
