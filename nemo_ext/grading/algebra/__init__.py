"""Computer algebra (math-verify) in processes that a pair may stall or kill."""
