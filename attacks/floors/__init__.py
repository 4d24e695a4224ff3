"""Answers that look at no update: what any attack has to beat."""
