"""Estimates of a plan before anything runs: seconds, GPU hours, memory, disk space."""
