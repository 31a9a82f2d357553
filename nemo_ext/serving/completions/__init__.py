"""Completions on disk: in which order they are asked for, stored, found again, counted."""
