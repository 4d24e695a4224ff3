"""The client: what it computes from its private images, and what it sends instead."""
