"""An entry held to its board: rules on artefacts, cells run again, the verdict."""
