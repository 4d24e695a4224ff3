"""Programs that a maintainer runs in a checkout, to refresh README.md and docs/; in no wheel."""
