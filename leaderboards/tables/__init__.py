"""Ranks and scores as text, Markdown and LaTeX, with their notes."""
