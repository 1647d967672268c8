"""Run folders: what is written, sealed, and read again."""
