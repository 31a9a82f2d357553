"""Arithmetic written in solutions: false statements found, long ones split."""
