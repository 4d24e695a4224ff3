"""Programs that write docs/paper.md: a paper's claims beside our figures."""
