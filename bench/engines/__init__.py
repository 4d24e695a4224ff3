"""Engines: what runs the blocks of a plan."""
