"""Models made of others' weights, a few rows of each tensor at a time."""
