"""Training problems that are a benchmark's in other words."""
