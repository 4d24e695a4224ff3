"""Networks by name, and their weights: untrained, trained and kept, or from a file."""
