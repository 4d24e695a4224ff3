"""Computes a plan: block after block and job after job, each published, survived and reported."""
