"""Rules that compare two answers, one kind of answer per file."""
