"""Attacks and defenses by name, wherever they come from, with checked parameters."""
