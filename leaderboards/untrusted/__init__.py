"""The one door for strangers' files."""
