"""Decisions between submissions before everything has run; docs/decide.md explains them."""
