"""Clipping and noise, with a proof or without."""
