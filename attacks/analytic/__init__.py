"""Attacks that solve for what a layer saw."""
