"""Evidence about a defense: what every attack and floor scored, question by question and image by image."""
