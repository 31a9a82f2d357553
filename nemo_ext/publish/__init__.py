"""A finished data set as others take it up: files per split, and a card that says how it was made."""
