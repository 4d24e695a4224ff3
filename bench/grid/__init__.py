"""What a user asks for: the grid file, checked and complete, and the cells that it names."""
