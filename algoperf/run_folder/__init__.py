"""Files that stay whole, whatever ends the process that writes them."""
