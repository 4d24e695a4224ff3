"""Results of a run as PNG and SVG."""
