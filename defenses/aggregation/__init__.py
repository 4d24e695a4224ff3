"""More images, local steps or clients behind each update."""
