"""Readers of models' replies, one file each: what a reply says, or None where it does not say so clearly."""
