"""JSON as orjson reads and writes it, with whole numbers of any length kept exact.

    loads(b'{"expected_answer": 12345678901234567890123}')   # orjson alone: 1.2345678901234568e+22

orjson reads a whole number beyond 64 bits as a double and refuses to write one.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import orjson

LIMIT = float(1 << 63)
"""A number below it, without its sign, was read exactly; above it orjson may have made a double of a whole number."""


def loads(data: bytes | str) -> Any:
    """Raises orjson.JSONDecodeError: not JSON, nested nearly a thousand levels deep, or a whole number of more than
    4,300 digits, which Python does not read."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):  # what a whole number of 309 digits overflows to
            raise
        return _exact(data)
    try:
        return _exact(data) if _may_be_rounded(value) else value
    except RecursionError as error:  # orjson reads 1,024 levels, which is more than Python follows
        raise orjson.JSONDecodeError("nested too deeply", "", 0) from error


def dumps(value: Any, default: Callable[[Any], Any] = str, option: int | None = None) -> bytes:
    """`default`: what becomes of values that JSON has no type for. `option`: orjson's."""
    try:
        return orjson.dumps(value, default=default, option=option)
    except orjson.JSONEncodeError as error:
        if "Recursion limit" in str(error):  # orjson writes 254 levels, and reads more
            return json.dumps(value, default=default, ensure_ascii=False, separators=(",", ":")).encode()
        if "64-bit" not in str(error):
            raise
        return orjson.dumps(_in_digits(value), default=default, option=option)


def _may_be_rounded(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return bool(value >= LIMIT or value <= -LIMIT)
    if kind is dict:
        return any(map(_may_be_rounded, value.values()))
    return kind is list and any(map(_may_be_rounded, value))


def _exact(data: bytes | str) -> Any:
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
    except ValueError as error:
        raise orjson.JSONDecodeError(str(error), "", 0) from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is not a number that JSON has")
    return value


def _in_digits(value: Any) -> Any:
    """The value with each whole number that orjson refuses as the digits to write."""
    if isinstance(value, dict):
        return {key: _in_digits(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_in_digits(each) for each in value]
    is_long = isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64
    return orjson.Fragment(str(value)) if is_long else value
