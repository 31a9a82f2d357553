"""Questions whose replies judge: pairs of problems, and how likely a solution is."""
