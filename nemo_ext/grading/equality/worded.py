"""Answers that have words between their numbers: "3 boys and 4 girls", "7 if n is even", "Ann: 5, Bob: 6".

Nothing here understands the words. Answers are compared value by value where both have the same words for them; the words
themselves decide only where two are known to be contrary.
"""

import re
from collections.abc import Callable

from nemo_ext.grading.reading.number import number
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

Decide = Callable[[str, str], Verdict | None]

# Two or three letters are a word only with a space beside them: 2ab is a product.
_WORD = re.compile(
    r"(?<![A-Za-z\\])(?!(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![A-Za-z])|(?:log|exp|sqrt|d[a-z])(?![A-Za-z]))"
    r"(?:[A-Za-z]{4,}|(?<= )[A-Za-z]{2,3}(?![A-Za-z])|[A-Za-z]{2,3}(?= ))(?:['-][A-Za-z]+)*"
)
_CONTRARIES = tuple(
    {word: side for side, words in enumerate(sides.split(" | ")) for word in words.split()}
    for sides in (
        "more greater larger bigger higher taller longer heavier older faster warmer dearer expensive wider deeper richer | "
        "less fewer smaller lower shorter lighter younger slower colder cheaper cheap narrower shallower poorer",
        "stronger | weaker",
        "ahead | behind",
        "discount | markup surcharge",
        "closer nearer | farther further",
        "overpaid | underpaid",
        "north northern northward | south southern southward | east eastern eastward | west western westward",
        "northeast | northwest | southeast | southwest",
        "up upward upwards above rise rises risen | down downward downwards below drop drops fall falls fallen",
        "left leftward | right rightward",
        "gain gains gained profit increase increased | loss losses lost decrease decreased",
        "clockwise | counterclockwise counter-clockwise anticlockwise anti-clockwise",
        "ago before earlier early | later after late",
        "even | odd",
        "positive | negative",
        "maximum | minimum",
        "increasing | decreasing",
        "inside | outside",
        "won win wins | lost lose loses",
        "prime | composite",
        "all every | no none",
        "forward forwards | backward backwards",
        "heads | tails",
        "credit | debit",
        "deposit | withdrawal",
        "surplus | deficit",
    )
)
_CONTRARY_WORDS = frozenset(word for group in _CONTRARIES for word in group)
_ITEM_ENDS = re.compile(r"[,;]|(?<![A-Za-z])and(?![A-Za-z])|[()\[\]{}]")
_CONDITION_WORDS = """if when where for unless while with without not no than least most about over under half twice
    double or and to mod is are between from by as every only either neither"""
_CONDITIONS = frozenset(_CONDITION_WORDS.split())
_UNKNOWN = re.compile(
    r"\d ?[-+*] ?(?:[A-Za-z]{4,}|[A-Za-z]+ )|[A-Za-z]{4,} ?[-+*/] ?\d"
)  # 10 + John's age is not a number
_TRAILING_WORDS = re.compile(r"(.*[\d})\]!%])[ ]?((?:[A-Za-z]{3,}|of(?= ))(?:[ '-][A-Za-z]+)*)\.?", re.DOTALL)
_LEADING_LABEL = re.compile(
    r"(?:[A-Za-z][A-Za-z' ]* )?(?:is|are|equals)[: ]?(?P<value>[^A-Za-z].*|[A-Za-z])", re.DOTALL
)


def words(text: str) -> list[str]:
    """The words of a normalised answer, in lower case; LaTeX commands and single letters do not count."""
    return [word.casefold() for word in _WORD.findall(text)]


def contrary(left: str, right: str) -> bool:
    """Does one say "north" and the other "south"?"""
    ours, theirs = (_CONTRARY_WORDS.intersection(words(text)) for text in (left, right))
    if not ours or not theirs or ours == theirs:
        return False
    for group in _CONTRARIES:
        sides = [{group[word] for word in each if word in group} for each in (ours, theirs)]
        if sides[0] and sides[1] and not sides[0] & sides[1]:
            return True
    return False


def compare_worded(left: str, right: str, decide: Decide) -> Verdict | None:
    """The verdict where both have words, or one has only a noun behind its value; None where words decide nothing."""
    if "\\begin" in left or "\\begin" in right:
        return None
    ours, theirs = words(left), words(right)
    if ours and theirs:
        if contrary(left, right) and "not" not in (*ours, *theirs):
            return Verdict(DIFFERENT, "words")
        found = _by_items(left, right, decide)
        return _by_gaps(left, right, decide) if found is None else found
    if ours or theirs:
        worded, other = (left, right) if ours else (right, left)
        if _UNKNOWN.search(worded) and number(other):
            return Verdict(DIFFERENT, "words")
        value = _value_alone(worded)
        return decide(value, other) if value else None
    return None


def _value_alone(text: str) -> str | None:
    """What stands before "square widgets" or behind "The area is"; None where words may change what it means."""
    trailing = _TRAILING_WORDS.fullmatch(text)
    if trailing and not words(trailing[1]) and _CONDITIONS.isdisjoint(trailing[2].casefold().split()):
        return trailing[1]
    label = _LEADING_LABEL.fullmatch(text)
    return label["value"] if label and not words(label["value"]) else None


def _items(text: str) -> list[str]:
    """Split at commas and "and" outside all brackets."""
    found, start, depth = [], 0, 0
    for mark in _ITEM_ENDS.finditer(text):
        if mark[0] in "([{":
            depth += 1
        elif mark[0] in ")]}":
            depth -= 1
        elif depth == 0:
            found.append(text[start : mark.start()])
            start = mark.end()
    return [item for item in (each.strip() for each in (*found, text[start:])) if item]


def _by_items(left: str, right: str, decide: Decide) -> Verdict | None:
    """Every item one value with its words: by the words, in any order."""
    ours, theirs = (_named_values(text) for text in (left, right))
    if ours is None or theirs is None or set(ours) != set(theirs):
        return None
    return _together([_decided(ours[name], theirs[name], decide) for name in ours])


def _named_values(text: str) -> dict[tuple[str, ...], str] | None:
    items = _items(text)
    named = {tuple(word.removesuffix("s") for word in words(item)): _WORD.sub(" ", item) for item in items}
    return named if len(named) == len(items) > 1 else None


def _by_gaps(left: str, right: str, decide: Decide) -> Verdict | None:
    """The same words in the same order: what stands between them, place by place."""
    if words(left) != words(right):
        return None
    gaps = zip(_WORD.split(left), _WORD.split(right), strict=True)
    return _together([_decided(a, b, decide) for a, b in gaps])


def _decided(left: str, right: str, decide: Decide) -> Verdict | None:
    left, right = _trimmed(left), _trimmed(right)
    if left == right:
        return Verdict(EQUAL, "words")
    return decide(left, right) if left and right else Verdict(UNDECIDED, "words")


def _trimmed(text: str) -> str:
    text = text.strip(" ,:;.")
    opened, closed = text.count("("), text.count(")")
    return text if opened == closed else text.rstrip("( ") if opened > closed else text.lstrip(") ").removesuffix(")")


def _together(found: list[Verdict | None]) -> Verdict:
    equalities = {each.equality if each is not None else UNDECIDED for each in found}
    equality = DIFFERENT if DIFFERENT in equalities else UNDECIDED if UNDECIDED in equalities else EQUAL
    return Verdict(equality, "words")
