"""What several reference algorithms are made of; no algorithm itself."""
