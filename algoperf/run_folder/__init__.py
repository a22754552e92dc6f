"""The files of a run folder, which stay whole however the process that writes them ends."""
