"""Numbers written out: "two" is 2, "twenty-five" is 25."""

_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_WORDS |= {
    f"{tens}{joint}{unit}": _WORDS[tens] + _WORDS[unit] for tens in _TENS for unit in _UNITS[1:10] for joint in "- "
}
_WORDS |= {"one hundred": 100, "a hundred": 100, "one thousand": 1000, "one million": 10**6}


def number_word(text: str) -> str | None:
    """The digits of a number up to a hundred (and a few round ones) written in lower-case words, else None."""
    value = _WORDS.get(text)
    return None if value is None else str(value)
