"""Boards and what has been handed in to them: schema, reading, packing, reviews."""
