"""Errors, seeds, devices and provenance: every other room of the referee may use them."""
