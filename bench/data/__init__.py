"""Images to attack and to train on, by the name of their dataset."""
