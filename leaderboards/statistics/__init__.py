"""Means over images and seeds with intervals, and their comparison; knows nothing of floors, verdicts and ranks."""
