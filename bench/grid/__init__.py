"""The grid file that a user writes, checked and complete, and the cells that it names."""
