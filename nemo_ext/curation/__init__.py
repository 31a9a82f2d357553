"""Which rows stay: filters, edits, duplicates, downsampling, retrieval and decontamination."""
