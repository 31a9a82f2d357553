"""A finished data set as others take it up: files per split, and a card that says how it was made."""

COLUMNS = ("problem", "generated_solution", "expected_answer", "problem_source")
"""The columns that OpenMathInstruct-2 was released with."""
