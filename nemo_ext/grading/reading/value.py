"""Values of the trees of syntax.py: exactly where they are rational, else numerically with a bound of their error.

Every numeric value is a pair (value, error): two values differ when they lie further apart than their errors allow, so
neither 120006 and 120000 nor 10^-30 and 10^-31 are ever taken for equal, and nothing is decided near a pole.
"""

import cmath
import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from nemo_ext.grading.reading.syntax import Node

MAX_EXPONENT = 20_000  # bits of an exact power
MAX_FACTORIAL = 500
_MAX_LOG = {"float": 300.0, "mp": 1e5}
MAX_BINOMIAL = 2000


class NoValue(ValueError):
    """Not a number here: another kind of thing, a pole, a branch that two readings take differently."""


class TooLarge(NoValue):
    """A power beyond any answer, such as 10^{10^{10}}: nothing could work it out."""


class Value(NamedTuple):
    """A complex number and how far it may be off."""

    value: Any
    error: Any


def exact(node: Node) -> Fraction | None:
    """The rational value of a tree, or None when it is not seen to have one.

    Raises:
        TooLarge: a power of more than MAX_EXPONENT bits.
        NoValue: a division by zero.
    """
    kind = node[0]
    if kind == "num":
        value: Fraction = node[1]
        return value
    if kind in ("sum", "product"):
        parts = [exact(part) for part in node[1]]
        if any(part is None for part in parts):
            return None
        found = sum if kind == "sum" else math.prod
        return Fraction(found(part for part in parts if part is not None))
    if kind not in ("neg", "quotient", "power", "factorial", "binomial"):
        return None
    operands = [exact(part) for part in node[1:]]
    if any(operand is None for operand in operands):
        return None
    return _exact_operation(kind, *(operand for operand in operands if operand is not None))


def _exact_operation(kind: str, left: Fraction, right: Fraction = Fraction(1)) -> Fraction | None:
    if kind == "neg":
        return -left
    if kind == "quotient":
        if right == 0:
            raise NoValue("division by zero")
        return left / right
    if kind == "power":
        return _exact_power(left, right)
    return _exact_count(kind, left, right)


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    if base in (0, 1, -1):
        if base == 0 and exponent <= 0:
            raise NoValue("0 to the power of 0 or less")
        return base ** int(exponent % 2 or 2)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > MAX_EXPONENT:
        raise TooLarge("power")
    return base ** int(exponent)


def _exact_count(kind: str, left: Fraction, right: Fraction) -> Fraction | None:
    if left.denominator != 1 or left < 0 or right.denominator != 1 or right < 0:
        raise NoValue("a factorial of no whole number")
    if left > (MAX_FACTORIAL if kind == "factorial" else MAX_BINOMIAL):
        raise TooLarge(kind)
    return Fraction(math.factorial(int(left)) if kind == "factorial" else math.comb(int(left), int(right)))


@lru_cache(maxsize=1)
def _fifty_digits() -> Any:
    """mpmath, in a context of our own: its precision is nobody else's business."""
    import mpmath

    context = mpmath.mp.clone()
    context.dps = 55
    return context


class Numbers:
    """A number system to evaluate trees in: Python's floats, or 50 digits of mpmath.

    variables: name -> value. log_base: what a bare "log" means here.
    """

    def __init__(self, kind: str, variables: dict[str, Any], log_base: int = 10) -> None:
        self.kind, self.variables, self.log_base = kind, variables, log_base
        self.extreme = False  # an intermediate value beyond 1e20 or below 1e-20, where 50 digits may hide a difference
        if kind == "float":
            self.library: Any = cmath
            self.epsilon = 2.0**-52
        else:
            self.library = _fifty_digits()
            self.epsilon = self.library.mpf(10) ** -50
        self.constants = {"pi": self.library.pi * 1, "e": self.library.e * 1, "i": 1j}

    def rational(self, value: Fraction) -> Value:
        if self.kind == "float":
            try:
                number: Any = complex(float(value))
            except OverflowError as error:
                raise NoValue("out of a float's range") from error
            if number == 0 != value:
                raise NoValue("out of a float's range")
        else:
            number = self.library.mpf(value.numerator) / value.denominator
        return Value(number, abs(number) * self.epsilon)

    def evaluate(self, node: Node) -> Value:
        """The value of a tree.

        Raises:
            NoValue, TooLarge: it has none here.
        """
        kind = node[0]
        if kind == "num":
            found = self.rational(node[1])
        elif kind == "const":
            constant = self.constants[node[1]]
            found = Value(constant, abs(constant) * self.epsilon)
        elif kind == "var":
            found = self.rational(self.variables[node[1]])
        elif kind == "sum":
            found = self._sum([self.evaluate(part) for part in node[1]])
        elif kind == "product":
            found = self._product([self.evaluate(part) for part in node[1]])
        elif kind == "neg":
            value, error = self.evaluate(node[1])
            found = Value(-value, error)
        elif kind in _OPERATIONS:
            found = _OPERATIONS[kind](self, *node[1:])
        else:
            raise NoValue(kind)
        return self._checked(found)

    def _checked(self, found: Value) -> Value:
        size = abs(found.value)
        if size > 1e20 or 0 < size < 1e-20:
            self.extreme = True
        if not (self.library.isfinite(found.value) if self.kind == "float" else self.library.isfinite(size)):
            raise NoValue("not finite")
        return found

    def _sum(self, parts: list[Value]) -> Value:
        value, error = parts[0]
        for part in parts[1:]:
            value = value + part.value
            error = error + part.error + abs(value) * self.epsilon
        return Value(value, error)

    def _product(self, parts: list[Value]) -> Value:
        value, error = parts[0]
        for part in parts[1:]:
            error = error * abs(part.value) + part.error * abs(value) + error * part.error
            value = value * part.value
            error = error + abs(value) * self.epsilon
        return Value(value, error)

    def nonzero(self, found: Value) -> Value:
        if abs(found.value) <= 100 * found.error or found.value == 0:
            raise NoValue("zero, or too near to tell")
        return found

    def quotient(self, top: Node, bottom: Node) -> Value:
        (a, a_error), (b, b_error) = self.evaluate(top), self.nonzero(self.evaluate(bottom))
        value = a / b
        return Value(value, (a_error + abs(value) * b_error) / abs(b) + abs(value) * self.epsilon)

    def _snap(self, found: Value) -> Any:
        """The value, put on the real axis where it cannot be told from it: roots and logarithms jump across it."""
        value, error = found
        imaginary = value.imag
        if imaginary and abs(imaginary) <= 100 * error:
            imaginary = 0
        return (
            complex(value.real, 0.0) if self.kind == "float" and not imaginary else value if imaginary else value.real
        )

    def power(self, base: Node, exponent: Node) -> Value:
        whole = exact(exponent)
        raised, (y, y_error) = self.evaluate(base), self.evaluate(exponent)
        if raised.value == 0:
            if whole is None or whole <= 0:
                raise NoValue("0 to a power")
            return Value(raised.value, raised.error)
        x = self._snap(self.nonzero(raised))
        size = self._log_size(x) * abs(y)
        if size > _MAX_LOG[self.kind]:
            raise TooLarge("power")
        if whole is not None and whole.denominator == 1:
            value = x ** int(whole)
        elif x.real < 0 and not x.imag:
            raise NoValue("a root of a negative number has two readings")
        else:
            value = self.library.exp(y * self.library.log(x))
        relative = abs(y) * raised.error / abs(x) + self._log_size(x) * y_error + (1 + size) * self.epsilon
        return Value(value, abs(value) * relative)

    def _log_size(self, value: Any) -> Any:
        return abs(self.library.log(value))

    def root(self, index: Node, radicand: Node) -> Value:
        order = exact(index)
        if order is None or order.denominator != 1 or not 2 <= order <= 100:
            raise NoValue("an odd index of a root")
        found = self.evaluate(radicand)
        if found.value == 0 and exact(radicand) == 0:
            return found
        x, n = self._snap(self.nonzero(found)), int(order)
        if n == 2:
            value = self.library.sqrt(x)
        elif x.imag or (x.real < 0 and n % 2 == 0):
            raise NoValue("a root of a complex number")
        else:  # the real root, also of a negative number: \sqrt[3]{-8} is -2
            value = self.library.exp(self.library.log(abs(x)) / n) * (-1 if x.real < 0 else 1)
        return Value(value, abs(value) * (found.error / abs(x) / n + 4 * self.epsilon))

    def absolute(self, inner: Node) -> Value:
        value, error = self.evaluate(inner)
        return Value(abs(value) + 0 * value, error)

    def counted(self, node: Node) -> Value:
        value = exact(node)
        if value is None:
            raise NoValue("a factorial of no known whole number")
        return self.rational(value)

    def function(self, name: str, inner: Node) -> Value:
        if inner[0] == "degrees":
            inner = ("quotient", ("product", (inner[1], ("const", "pi"))), ("num", Fraction(180)))
        found = self.evaluate(inner)
        x, error = found
        if abs(x) > 1e6:
            raise NoValue("too large an argument")
        if name in ("ln", "log"):
            x = self._snap(self.nonzero(found))
            value, slope = self.library.log(x), 1 / abs(x)
            if name == "log" and self.log_base == 10:
                value, slope = value / self.library.log(10), slope
        else:
            value, slope = self._smooth(name, found)
        return Value(value, slope * error + (abs(value) + self.epsilon) * 4 * self.epsilon)

    def _smooth(self, name: str, found: Value) -> tuple[Any, Any]:
        """(f(x), |f'(x)|)."""
        lib, x = self.library, found.value
        if name in ("sin", "cos", "sinh", "cosh", "exp"):
            if name not in ("sin", "cos") and abs(x) > _MAX_LOG[self.kind]:
                raise TooLarge(name)
            value = getattr(lib, name)(x)
            return value, 1 + abs(value)
        if name in ("tan", "tanh"):
            value = getattr(lib, name)(x)
            return value, 1 + abs(value * value)
        if name in ("sec", "csc", "cot"):
            sine, cosine = lib.sin(x), lib.cos(x)
            top, bottom = {"sec": (1, cosine), "csc": (1, sine), "cot": (cosine, sine)}[name]
            self.nonzero(Value(bottom, found.error + self.epsilon))
            return top / bottom, 1 / abs(bottom * bottom)
        if x.imag or (name != "arctan" and abs(x) > 1 - 1e-9 and exact_unit(x) is None):
            raise NoValue("an inverse function at its edge")
        value = getattr(lib, {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}[name])(x)
        return value, 1 / max(abs(1 - x * x), 1e-3) if name != "arctan" else 1


def exact_unit(value: Any) -> int | None:
    """1 or -1 where the value is that to the last bit."""
    return int(value.real) if value in (1, -1) else None


_OPERATIONS: dict[str, Any] = {
    "quotient": Numbers.quotient,
    "power": Numbers.power,
    "root": Numbers.root,
    "abs": Numbers.absolute,
    "factorial": lambda self, inner: self.counted(("factorial", inner)),
    "binomial": lambda self, top, bottom: self.counted(("binomial", top, bottom)),
    "function": Numbers.function,
}
