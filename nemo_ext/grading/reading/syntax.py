r"""Read a normalised answer as a tree: values, lists, tuples and intervals, sets, unions, relations, matrices.

    parse(r"[0,\frac{\pi}{2})")  ->  ("group", "[", ")", (("num", 0), ("quotient", ("const", "pi"), ("num", 2))))

Linear in the length of the text, and nested at most MAX_DEPTH deep. What this small grammar does not know is refused
(Unreadable), never guessed at: the caller then asks computer algebra.
"""

import re
from fractions import Fraction
from functools import lru_cache

from nemo_ext.grading.reading.joints import Node, joined

MAX_DEPTH = 40
_MAX_DIGITS = 1000
_DIGITS = frozenset("0123456789")

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\*\*|(?:\d+(?:\.\d*)?|\.\d+)|[A-Za-z]+|.", re.DOTALL | re.ASCII)
FUNCTIONS = {  # of one argument, also without the backslash
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "exp", "ln", "log",
}  # fmt: skip
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "lambda", "mu", "nu", "xi", "rho",
    "sigma", "tau", "phi", "varphi", "chi", "psi", "omega",
}  # fmt: skip
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "\\lt": "<", "\\gt": ">", "\\le": "<=", "\\leq": "<=", "\\ge": ">=", "\\geq": ">=",
    "\\leqslant": "<=", "\\geqslant": ">=", "\\in": "in", "\\ne": "!=",
}  # fmt: skip
_PRODUCT = frozenset(("*", "\\cdot", "\\times"))
_QUOTIENT = frozenset(("/", "\\div"))
_CLOSING = {"(": ")]", "[": ")]", "\\{": ("\\}",), "{": "}", "|": "|"}
_SEPARATORS = frozenset((",", ";", "and", "or"))
_RATIO = frozenset((":", "to"))
_SET_OPERATIONS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "without"}
_REALS: Node = ("group", "(", ")", (("neg", ("infinity",)), ("infinity",)))
_CALLED = frozenset("fghFGPQ")
MATRICES = frozenset(("pmatrix", "bmatrix", "matrix", "smallmatrix", "array"))


class Unreadable(ValueError):
    """Not of this grammar."""


class TooDeep(Unreadable):
    """Nested deeper than any answer is."""


@lru_cache(maxsize=16384)
def parse(text: str, sign: int = 1) -> Node:
    r"""The tree of a normalised answer; `sign` is what \pm stands for (and \mp for its opposite).

    Raises:
        Unreadable: it is not of this grammar; TooDeep: nor worth asking computer algebra about.
    """
    return _Parser(text, sign).answer()


def tokens(text: str) -> list[str]:
    """Commands, numbers, runs of letters and single signs, without the spaces."""
    return [piece for piece in _TOKEN.findall(text) if piece != " "]


def _times(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else ("product", tuple(factors))


class _Parser:
    def __init__(self, text: str, sign: int) -> None:
        self.tokens = tokens(text)
        self.at = 0
        self.sign = sign
        self.depth = 0
        self.in_set = False  # directly in braces, where a colon is "such that"

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        if not token or (expected and token not in expected):
            raise Unreadable(token)
        self.at += 1
        return token

    def answer(self) -> Node:
        found, joints = self._joined_items()
        if self.next:
            raise Unreadable(self.next)
        return found[0] if len(found) == 1 else joined(found, joints)

    def items(self) -> tuple[Node, ...]:
        return self._joined_items()[0]

    def _joined_items(self) -> tuple[tuple[Node, ...], tuple[str, ...]]:
        """(items, what stands between them)."""
        found, joints = [self.item()], []
        while self.next in _SEPARATORS:
            joints.append(self.take())
            if self.next in ("and", "or"):  # behind the comma of ", and"
                joints[-1] = self.take()
            found.append(self.item())
        return tuple(found), tuple(joints)

    def item(self) -> Node:
        if self.next == "\\ldots":
            self.at += 1
            return ("dots",)
        found = self.relation()
        while self.next in _SET_OPERATIONS:
            kind = _SET_OPERATIONS[self.take()]
            right = self.relation()
            found = (kind, (*found[1], right) if found[0] == kind == "union" else (found, right))
        return found

    def relation(self) -> Node:
        operands, operators = [self.ratio()], []
        while self.next in _RELATIONS:
            operators.append(_RELATIONS[self.take()])
            operands.append(self.ratio())
        return ("relation", tuple(operators), tuple(operands)) if operators else operands[0]

    def ratio(self) -> Node:
        """2:3:5, and "2 to 3", which may be a range as well."""
        terms, kind = [self.sum()], "ratio"
        while self.next in _RATIO and not (self.next == ":" and self.in_set):
            kind = "range" if self.take() == "to" else kind
            terms.append(self.sum())
        return terms[0] if len(terms) == 1 else (kind, tuple(terms))

    def sum(self) -> Node:
        terms = []
        while True:
            sign = self._signs()
            term = self.product()
            terms.append(term if sign > 0 else ("neg", term))
            if self.next not in ("+", "-", "\\pm", "\\mp"):
                return terms[0] if len(terms) == 1 else ("sum", tuple(terms))

    def _signs(self) -> int:
        sign = 1
        while self.next in ("+", "-", "\\pm", "\\mp"):
            sign *= {"+": 1, "-": -1, "\\pm": self.sign, "\\mp": -self.sign}[self.take()]
        return sign

    def product(self) -> Node:
        """Factors side by side bind as tightly as written signs do; "1/2x" has two readings, so it has none here."""
        top, bottom, divided = [self.factor()], [], False
        while True:
            if self.next in _PRODUCT:
                self.at += 1
                top.append(self._signed_factor())
                divided = False
            elif self.next in _QUOTIENT:
                self.at += 1
                bottom.append(self._signed_factor())
                divided = True
            elif self._factor_follows():
                if divided:
                    raise Unreadable("a/bc")
                self._side_by_side(top)
            else:
                break
        return ("quotient", _times(top), _times(bottom)) if bottom else _times(top)

    def _side_by_side(self, factors: list[Node]) -> None:
        before, mixed = factors[-1], self.next == "\\frac"
        if self.next[0] in _DIGITS and before[0] in ("num", "var"):
            raise Unreadable("two numbers in a row, or a letter and a number")
        factor = self.factor()
        if mixed and before[0] == "num" and factor[0] == "quotient" and factor[1][0] == factor[2][0] == "num":
            if before[1].denominator != 1 or factor[1][1] >= factor[2][1]:
                raise Unreadable("a mixed number or a product")
            factors[-1] = ("sum", (before, factor))
        else:
            factors.append(factor)

    def _signed_factor(self) -> Node:
        return ("neg", self.factor()) if self._signs() < 0 else self.factor()

    def _factor_follows(self) -> bool:
        token = self.next
        if not token or token in _SEPARATORS or token in _RELATIONS or token in _RATIO:
            return False
        return (
            token[0].isalnum()
            or token in ("(", "[", "{", ".")
            or (token[0] == "\\" and token[1:2].isalpha() and self._starts(token[1:]))
        )

    def _starts(self, name: str) -> bool:
        return name in FUNCTIONS or name in GREEK or name in ("frac", "sqrt", "pi", "binom", "infty")

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep("nested too deep")
        base = self.base()
        while True:
            if self.next == "!" and base[0] not in ("factorial", "power"):
                self.at += 1
                base = ("factorial", base)
            elif self.next in ("^", "**"):
                self.at += 1
                base = self._raised(base)
            else:
                break
        self.depth -= 1
        return base

    def _raised(self, base: Node) -> Node:
        if self.next == "\\circ":
            self.at += 1
            if base[0] == "degrees":
                raise Unreadable("degrees of degrees")
            return ("degrees", base)
        if base[0] == "power":
            raise Unreadable("a^b^c")
        return ("power", base, self.argument())

    def argument(self) -> Node:
        """What TeX takes after ^ or \\frac: a braced group, or a single sign (a whole number is meant by x^10)."""
        if self.next in ("-", "+"):
            return ("neg", self.argument()) if self._signs() < 0 else self.argument()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep("nested too deep")
        if self.next and self.next.isalpha():
            letter = self._letter()
            self.depth -= 1
            return letter
        found = self.base()
        self.depth -= 1
        return found

    def base(self) -> Node:
        token = self.next
        if not token:
            raise Unreadable("ends early")
        if token[0] in _DIGITS or (token[0] == "." and len(token) > 1):
            return self._number()
        if token in _CLOSING:
            return self._bracketed()
        if token[0] == "\\":
            return self._command(token[1:])
        if token.isalpha():
            return self._word()
        raise Unreadable(token)

    def _number(self) -> Node:
        token = self.take()
        if len(token) > _MAX_DIGITS or self.next == "_":
            raise Unreadable("a long number, or one in another base")
        return ("num", Fraction(token if token[-1] != "." else token[:-1]))

    def _word(self) -> Node:
        word = self.next
        if word.isascii() and (word in FUNCTIONS or word in ("sqrt", "pi")):
            return self._command(word)
        if len(word) > 3 or not word.isascii() or word in _SEPARATORS or word in _RATIO:
            raise Unreadable(word)
        return self._letter()

    def _letter(self) -> Node:
        """The first letter of a run of them, which is a product of variables."""
        letter, rest = self.next[0], self.next[1:]
        self.tokens[self.at : self.at + 1] = [letter, *([rest] if rest else [])]
        self.at += 1
        if self.next == "_":
            return self._indexed(letter)
        if letter in _CALLED and self.next == "(":
            raise Unreadable("f(x), or a product")
        return ("const", letter) if letter in "ei" else ("var", letter)

    def _indexed(self, name: str) -> Node:
        self.take("_")
        if self.next == "{":
            self.at += 1
            index = self.take()
            self.take("}")
        else:
            index = self.take()
        if not index.isalnum():
            raise Unreadable(index)
        return ("var", f"{name}_{index}")

    def _bracketed(self) -> Node:
        opened = self.take()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep("nested too deep")
        around, self.in_set = self.in_set, opened == "\\{"
        inner = self.items()
        if self.in_set and self.next in (":", "|") and len(inner) == 1:
            self.at += 1
            inner = (("such_that", inner[0], self.items()),)
        closed = self.take(*_CLOSING[opened])
        self.depth, self.in_set = self.depth - 1, around
        if opened == "\\{":
            return inner[0] if inner and inner[0][0] == "such_that" else ("set", inner)
        if opened == "|":
            return ("abs", self._only(inner))
        if len(inner) == 1 and (opened, closed) in (("(", ")"), ("{", "}"), ("[", "]")):
            return inner[0]
        return ("set", inner) if opened == "{" else ("group", opened, closed, inner)

    @staticmethod
    def _only(items: tuple[Node, ...]) -> Node:
        if len(items) != 1:
            raise Unreadable("a list where one value belongs")
        return items[0]

    def _command(self, name: str) -> Node:
        self.at += 1
        if name == "pi":
            return ("const", "pi")
        if name == "infty":
            return ("infinity",)
        if name in GREEK:
            return self._indexed(name) if self.next == "_" else ("var", name)
        if name in ("frac", "binom"):
            return ("quotient" if name == "frac" else "binomial", self.argument(), self.argument())
        if name == "sqrt":
            return self._root()
        if name in FUNCTIONS:
            return self._function(name)
        if name == "begin":
            return self._matrix()
        if name in ("emptyset", "varnothing"):
            return ("set", ())
        if name == "mathbb":
            for expected in ("{", "R", "}"):
                self.take(expected)
            return _REALS
        raise Unreadable(name)

    def _root(self) -> Node:
        index: Node = ("num", Fraction(2))
        if self.next == "[":
            self.at += 1
            index = self.sum()
            self.take("]")
        return ("root", index, self.argument())

    def _function(self, name: str) -> Node:
        """`\\sin 2x`: without brackets the argument is the factors that follow, up to a sign or another function."""
        power: Node | None = None
        base: Node | None = None
        if name == "log" and self.next == "_":
            self.at += 1
            base = self.argument()
        if self.next == "^":
            self.at += 1
            power = self.argument()
        if power == ("neg", ("num", Fraction(1))):
            name, power = f"arc{name}", None
            if name not in FUNCTIONS:
                raise Unreadable(name)
        argument = self._argument_of_function()
        found: Node = ("function", name, argument)
        if base is not None:
            found = ("quotient", ("function", "ln", argument), ("function", "ln", base))
        return found if power is None else ("power", found, power)

    def _argument_of_function(self) -> Node:
        if self.next in ("(", "{"):
            return self.factor()
        factors = [self.factor()]
        while self._factor_follows() and self.next.lstrip("\\") not in FUNCTIONS and self.next != "(":
            self._side_by_side(factors)
        if self.next in _QUOTIENT:
            raise Unreadable("sin x/y")
        return _times(factors)

    def _matrix(self) -> Node:
        self.take("{")
        name = self.take()
        self.take("}")
        if name not in MATRICES:
            raise Unreadable(name)
        if name == "array":  # its columns: {cc}, {c|c}
            self.take("{")
            while self.next != "}":
                self.take()
            self.take("}")
        rows: list[list[Node]] = [[self.sum()]]
        while self.next in ("&", "\\\\"):
            if self.take() == "&":
                rows[-1].append(self.sum())
            elif self.next != "\\end":
                rows.append([self.sum()])
        for expected in ("\\end", "{", name, "}"):
            self.take(expected)
        return ("matrix", tuple(tuple(row) for row in rows))
