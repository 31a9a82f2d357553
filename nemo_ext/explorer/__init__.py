"""A page to look at problems with all their samples, and at the rows of any stage: static files, opened from disk."""
