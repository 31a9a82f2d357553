"""Rows to training samples: token ids and loss masks."""
