"""The command `leakboard`: options, commands, and what is printed at the end."""
