"""The account of every sample of a run, from the model to the rows that are kept, by source and prompt strategy."""
