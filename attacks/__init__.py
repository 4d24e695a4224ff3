"""The adversary: an honest-but-curious server that turns updates back into images."""
