"""Everything on disk: files that are whole or absent, the folder of a run, tensors."""
