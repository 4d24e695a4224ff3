"""The referee: plans the grid, runs every cell, scores and stores it."""
