"""Arithmetic and memory of training, for plans. Light imports only."""
