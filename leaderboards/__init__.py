"""The publisher: ranks, tables, figures and pages from stored results."""
