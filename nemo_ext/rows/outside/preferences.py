"""Rows of preferences and ratings, whatever their columns are called, as rows of one answer each.

pair_of:      {prompt | messages | problem, chosen, rejected}, texts or lists of turns, with the prompt in a column of its
              own or as the turns that both begin with (TRL, UltraFeedback-binarized); chosen_reward and rejected_reward,
              or score_chosen and score_rejected; {prompt, response_1, response_2, preference_strength}
              (HelpSteer2-Preference)
labelled_of:  a row with an answer and `desirable`, `label` (TRL) or `is_correct` (graded here)
rated_of:     a row with an answer and one number per attribute (HelpSteer2: helpfulness, correctness, ...)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.outside.known_shapes import problem_column
from nemo_ext.rows.row import OF_A_SOLUTION, Row

MISSING_RATING = -100.0
"""Stands for a rating that a row does not have."""
REWARDS = (("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected"))
STRENGTH = "preference_strength"
"""HelpSteer2-Preference's: from -3, response_1 is much better, to 3, response_2 is; 0: neither."""
LABELS = ("desirable", "label", "is_correct")
_OF_A_PAIR = {
    "chosen", "rejected", "response_1", "response_2", STRENGTH, "preference_statement", "preference_elaboration",
    "three_most_similar_preferences", "all_preferences_unprocessed", "chosen_model", "rejected_model", "margin",
    *(name for pair in REWARDS for name in pair), *OF_A_SOLUTION,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    chosen: Row
    rejected: Row
    """Each a row of its own, as prepare_sft takes it."""
    rewards: tuple[float, float] | None
    """Of chosen and rejected, where the row says."""
    strength: float | None
    """How much better the chosen answer is, where the row says."""


def pair_of(row: Row) -> Pair:
    """The row's two answers to one prompt.

    Raises:
        BadRow: no_chosen, no_rejected, no_prompt, no_shared_prompt, same_answers, no_preference, bad_reward.
    """
    row, strength = _ordered(row)
    answers = []
    for name in ("chosen", "rejected"):
        if not row.get(name):
            raise BadRow(f"no_{name}")
        answers.append(row[name])
    if answers[0] == answers[1]:
        raise BadRow("same_answers")
    about = {key: value for key, value in row.items() if key not in _OF_A_PAIR}
    first, second = (_side(about, answer) for answer in answers)
    if "messages" in first and first["messages"][:-1] != second.get("messages", [])[:-1]:
        raise BadRow("no_shared_prompt", "the turns before the last are not the same in chosen and rejected")
    return Pair(first, second, _rewards(row), strength)


def labelled_of(row: Row) -> tuple[Row, bool]:
    """The row without its label, and whether its answer is desirable.

    Raises:
        BadRow: no_label; bad_label of what is neither true, false, 1 nor 0.
    """
    column = next((name for name in LABELS if row.get(name) is not None), None)
    if column is None:
        raise BadRow("no_label", f"it has none of {', '.join(LABELS)}")
    value = row[column]
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise BadRow("bad_label", f"{column}={value!r}: it may be true or false")
    return {key: each for key, each in row.items() if key not in LABELS}, bool(value)


def rated_of(row: Row, attributes: Sequence[str]) -> tuple[Row, list[float]]:
    """The row without its ratings, and the rating of each attribute, MISSING_RATING where it has none.

    Raises:
        BadRow: no_rating where it has none at all; bad_rating of what is no finite number, or MISSING_RATING itself.
    """
    ratings = [_number(row[name], name, "bad_rating") if row.get(name) is not None else None for name in attributes]
    if not any(each is not None for each in ratings):
        raise BadRow("no_rating", f"it has none of {', '.join(attributes)}")
    if MISSING_RATING in ratings:
        raise BadRow("bad_rating", f"{MISSING_RATING} stands for no rating: leave it out, or null")
    rest = {key: value for key, value in row.items() if key not in attributes}
    return rest, [MISSING_RATING if each is None else each for each in ratings]


def _ordered(row: Row) -> tuple[Row, float | None]:
    """The row with `chosen` and `rejected`, and the strength of the preference."""
    if "response_1" not in row or "response_2" not in row:
        strength = row.get("strength")
        return row, None if strength is None else _number(strength, "strength", "bad_strength")
    if row.get(STRENGTH) is None:
        raise BadRow("no_preference", f"it has response_1 and response_2, and no {STRENGTH}")
    strength = _number(row[STRENGTH], STRENGTH, "bad_strength")
    if strength == 0:
        raise BadRow("no_preference", f"{STRENGTH} is 0: neither is better")
    better, worse = ("response_2", "response_1") if strength > 0 else ("response_1", "response_2")
    return row | {"chosen": row[better], "rejected": row[worse]}, abs(strength)


def _side(about: Row, answer: Any) -> Row:
    """A row of one of the answers, under the columns that prepare_sft knows."""
    if isinstance(answer, str):
        return _with_text(about, answer)
    if not isinstance(answer, list) or not all(isinstance(turn, dict) for turn in answer):
        raise BadRow("no_text_messages", "an answer is a text, or a list of turns")
    rest = {key: value for key, value in about.items() if key not in ("prompt", "messages")}
    prompt = about.get("prompt") if about.get("prompt") is not None else about.get("messages")
    if isinstance(prompt, list) and prompt and prompt[-1].get("role") != "assistant":
        return rest | {"messages": [*prompt, *answer]}
    if len(answer) < 2:
        if not isinstance(prompt, str):
            raise BadRow("no_prompt")
        return rest | {"messages": [{"role": "user", "content": prompt}, *answer]}
    if isinstance(prompt, str) and not any(turn.get("content") == prompt for turn in answer[:-1]):
        raise BadRow("no_shared_prompt", "`prompt` is not among the turns of an answer")
    return rest | {"messages": answer}


def _with_text(about: Row, answer: str) -> Row:
    if problem_column(about) is not None:
        return about | {"generation": answer}
    for column in ("messages", "prompt"):
        if isinstance(about.get(column), list):
            rest = {key: value for key, value in about.items() if key != column}
            return rest | {"messages": [*about[column], {"role": "assistant", "content": answer}]}
    if isinstance(about.get("prompt"), str):
        return about | {"response": answer}
    raise BadRow("no_prompt", f"it has {', '.join(about)}")


def _rewards(row: Row) -> tuple[float, float] | None:
    for names in REWARDS:
        if any(row.get(name) is not None for name in names):
            first, second = (_number(row.get(name), name, "bad_reward") for name in names)
            return first, second
    return None


def _number(value: Any, name: str, reason: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(reason, f"{name}={value!r}: it must be a finite number")
    return float(value)
