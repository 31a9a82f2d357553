"""Rows of a person's own files, brought to the names that the pipeline has for them."""
