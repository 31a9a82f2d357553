r"""Solutions of toy problems that run Python, and solutions whose results are masked.

with_program     Let us compute it with Python.
                 <llm-code>
                 first = 347 * 128
                 print(512 + first)
                 </llm-code>
                 <llm-code-output>
                 44928
                 </llm-code-output>
                 The answer is \boxed{44928}.
masked           347 * 128 = M. 512 + M = N. The answer is \boxed{N}.
"""

from nemo_ext.sandbox.formats import LLM_CODE, with_output
from nemo_ext.toy.problems import KINDS, ToyProblem

Step = tuple[int, str, int, int]
FIRST, SECOND = "M", "N"


def steps_of(problem: ToyProblem) -> list[Step]:
    """(left, operator, right, result) of each of its two steps."""
    kind, *numbers = problem.key.split("/")
    a, b, c = map(int, numbers)
    return KINDS[kind].steps(a, b, c)


def subject_of(problem: ToyProblem) -> str:
    """Its kind, as MATH's problems have a subject."""
    return problem.key.partition("/")[0]


def with_program(problem: ToyProblem) -> str:
    """A whole trace: text, a block, what it prints, and the answer."""
    block = f"Let us compute it with Python.\n<llm-code>\n{program(problem)}\n</llm-code>"
    answer = problem.expected_answer
    return f"{with_output(LLM_CODE, block, answer)}The answer is \\boxed{{{answer}}}."


def program(problem: ToyProblem) -> str:
    """Two lines of Python that print the answer."""
    (left, operator, right, result), second = steps_of(problem)
    return f"first = {_python(left, operator, right)}\nprint({_python(*_named(second, result, 'first'))})"


def masked(problem: ToyProblem) -> str:
    """The solution in words with a letter for each result: what a solver may be shown without the answer."""
    (left, operator, right, result), second = steps_of(problem)
    x, then, y = _named(second, result, FIRST)
    return f"{left} {operator} {right} = {FIRST}. {x} {then} {y} = {SECOND}. The answer is \\boxed{{{SECOND}}}."


def _named(step: Step, first: int, name: str) -> tuple[str, str, str]:
    """(left, operator, right) of the second step with a name in the place of the first one's result."""
    left, operator, right, _ = step
    return (name, operator, str(right)) if left == first else (str(left), operator, name)


def _python(left: object, operator: str, right: object) -> str:
    return f"{left} {'//' if operator == '/' else operator} {right}"
