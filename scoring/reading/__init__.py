"""Reading of run folders into trials."""
