"""Answers: taking them out of a solution, comparing them, voting on them."""
