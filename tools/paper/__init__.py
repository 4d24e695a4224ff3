"""docs/paper.md: the paper's claims beside our figures."""
