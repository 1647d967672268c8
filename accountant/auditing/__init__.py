"""Lower bounds on ε: what an attacker got right shows what ε is not."""
