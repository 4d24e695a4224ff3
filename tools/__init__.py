"""What a maintainer runs in a checkout to refresh README and docs; not in the wheel."""
