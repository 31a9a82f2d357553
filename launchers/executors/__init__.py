"""One kind of cluster per file, found by file name."""
