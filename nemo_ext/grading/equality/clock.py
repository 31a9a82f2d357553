"""Times of day: 2:30 PM is 14:30, and 11:30 answers 11:30 AM.

time_of_day("3 PM")   ->  the moments it may be, in seconds after midnight: {54000}
time_of_day("11:30")  ->  {41400, 84600}
"""

import re

_TIME = re.compile(
    r"(?P<hour>[01]?\d|2[0-4])(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)?"
    r" ?(?:(?P<half>[ap])\. ?m\.?|(?P<half2>[ap])m|(?P<twelve>noon|midnight)|(?P<clock>o'clock))?",
    re.IGNORECASE | re.ASCII,
)
_NAMED = {"noon": frozenset((43200,)), "midday": frozenset((43200,)), "midnight": frozenset((0,))}
_HALF_DAY = 43200


def time_of_day(text: str) -> frozenset[int] | None:
    """The moments a normalised answer may mean; None when it is not a time, as hours alone are not without AM or PM."""
    if text in _NAMED:
        return _NAMED[text]
    time = _TIME.fullmatch(text)
    if time is None or not any(time[part] for part in ("minute", "half", "half2", "twelve", "clock")):
        return None
    hour, half = int(time["hour"]) % 24, (time["half"] or time["half2"] or "").lower()
    past = 60 * int(time["minute"] or 0) + int(time["second"] or 0)
    if time["twelve"]:
        return _NAMED[time["twelve"].lower()] if hour == 12 and not past else None
    if half:
        return frozenset((3600 * (hour % 12) + past + (_HALF_DAY if half == "p" else 0),)) if hour <= 12 else None
    found = 3600 * hour + past
    return frozenset((found, (found + _HALF_DAY) % (2 * _HALF_DAY))) if 1 <= hour <= 12 else frozenset((found,))
