"""Errors, seeds, devices, provenance and child processes: every other room of the referee may use them."""
