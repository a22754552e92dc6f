"""Rows as files, folders and the hub have them."""
