"""Attacks that learn from public images."""
