"""ε read as risk: what any attacker gains, and the noise that keeps it below a bound."""
