"""From a grid to what has to be computed: cells, jobs, fingerprints, groups of lanes, hours."""
