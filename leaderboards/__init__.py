"""The publisher: tables and plots from stored results."""
