"""The ledger: a durable record of every charged release."""
