"""Static pages of every board, from published entries alone."""
