"""What gradient-matching attacks share: the simulated client, distances, priors, and the problem they form."""
