"""Drug responses: a table with several labels a row."""
