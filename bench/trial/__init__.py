"""One block of one cell: what its clients send, the attack held to its contract, the score."""
