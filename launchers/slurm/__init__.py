"""A Slurm cluster: the batch scripts, what is asked of it before, and what it says of its jobs."""
