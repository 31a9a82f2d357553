"""Tokenised samples on disk, packed into micro-batches."""
