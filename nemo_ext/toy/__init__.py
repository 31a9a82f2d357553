"""The toy world: word problems that a million-parameter model can learn, for runs on a laptop."""
