"""Sending fewer entries, or coarser ones."""
