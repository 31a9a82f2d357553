r"""Answers: taking them out of a solution, comparing them, voting on them.

    extract_answer(r"so it is \boxed{12}.")                 ->  "12"
    grade_pairs([("0.5", r"\frac{1}{2}"), (None, "3")])     ->  [Verdict(EQUAL, "numeric"), Verdict(DIFFERENT, "no_answer")]

Importing this starts nothing and loads no computer algebra.
"""

from nemo_ext.grading.extract import extract_answer
from nemo_ext.grading.grader import grade_pairs
from nemo_ext.grading.verdict import Verdict

__all__ = ["Verdict", "extract_answer", "grade_pairs"]
