"""Start runs, several at a time."""
