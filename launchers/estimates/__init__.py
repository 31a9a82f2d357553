"""What a plan takes: seconds, GPU hours, memory, space, before anything runs."""
