"""Choosing rows: downsampling and code selection."""
