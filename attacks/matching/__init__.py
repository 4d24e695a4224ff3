"""The parts that gradient-matching attacks share: simulated client, distances, priors, and the problem they form."""
