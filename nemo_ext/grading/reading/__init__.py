"""Answers as text to values: normalised, parsed, with numbers and units."""
