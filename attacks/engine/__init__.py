"""Minimises any function of many lanes at once, as fast as this machine can; knows nothing of gradients of clients."""
