r"""The answer a sample may vote for.

read_answer(r"... so it is \boxed{1{,}007}.", AnswerRule(integers=True, modulus=1000))  ->  "7"
"""

from nemo_ext.aggregation.config import AnswerRule
from nemo_ext.grading.extract import last_box
from nemo_ext.grading.graders import whole_number


def read_answer(text: str, rule: AnswerRule) -> str | None:
    """The text's last box as the rule lets it stand; None: no answer, or none that may be voted for."""
    box = last_box(text)
    if box is None or (rule.window_chars is not None and len(text.rstrip()) - box.end > rule.window_chars):
        return None
    return allowed(box.content, rule)


def allowed(answer: str | None, rule: AnswerRule) -> str | None:
    """An extracted answer in the rule's form. Numbers are exact: 3.5 is not 4, 0.49 not 0, 1e3 is 1000."""
    if answer is None or not answer.strip():
        return None
    if not rule.integers:
        return answer
    value = whole_number(answer)
    if value is None or (rule.non_negative and value < 0):
        return None
    return str(value if rule.modulus is None else value % rule.modulus)
