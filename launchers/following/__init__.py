"""A run from outside: found, read from its files and its cluster's word, shown as a table."""
