"""The parts that attacks with public images share: releases of public clients, and the prior that images make."""
