"""Find, read and load a submission, from a path or a name to its functions."""
