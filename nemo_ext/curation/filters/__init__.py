"""Filters and edits that a recipe lists by name, one subject per file."""
