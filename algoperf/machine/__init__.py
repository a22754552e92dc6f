"""The machine that a trial runs on: its hardware, its memory, its processes, and what they use."""
