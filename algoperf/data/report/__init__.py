"""What rows are like: facts, duplicates, plots, and rows as files."""
