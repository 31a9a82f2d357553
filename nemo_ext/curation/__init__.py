"""Deciding which rows stay: filters, edits, duplicates, downsampling, retrieval and decontamination."""
