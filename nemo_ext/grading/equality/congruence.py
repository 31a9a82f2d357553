r"""Remainders: x \equiv 10 \pmod 7 is x \equiv 3 \pmod 7, and neither modulus nor remainder may differ."""

import math
import re
from typing import NamedTuple

from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

_CONGRUENCE = re.compile(
    r"(?:(?P<name>[A-Za-z](?:_\w)?)(?:\\equiv|=) ?)?(?P<residues>-?\d+(?:(?:,| ?and | ?or )-?\d+)*)"
    r" ?\(?(?:\\pmod|\\bmod|\\mod|mod)[ {]*(?P<modulus>[1-9]\d*)[})]*",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_MAX_RESIDUES = 10_000


class Congruence(NamedTuple):
    """name: the variable, "" for none."""

    name: str
    residues: frozenset[int]
    modulus: int


def congruence(text: str) -> Congruence | None:
    """What a normalised answer says of remainders; None when it is another thing."""
    if "mod" not in text or (found := _CONGRUENCE.fullmatch(text)) is None:
        return None
    modulus = int(found["modulus"])
    return Congruence(
        found["name"] or "", frozenset(int(each) % modulus for each in _NUMBER.findall(found["residues"])), modulus
    )


def compare_congruences(left: str, right: str) -> Verdict | None:
    """Decides where at least one is a congruence. One number answers it only as the remainder itself."""
    ours, theirs = congruence(left), congruence(right)
    if ours and theirs:
        if ours.name and theirs.name and ours.name != theirs.name:
            return Verdict(DIFFERENT, "congruence")
        common = math.lcm(ours.modulus, theirs.modulus)
        if common // ours.modulus * len(ours.residues) > _MAX_RESIDUES or common // theirs.modulus > _MAX_RESIDUES:
            return Verdict(DIFFERENT if ours.modulus != theirs.modulus else UNDECIDED, "congruence")
        return Verdict(EQUAL if _expanded(ours, common) == _expanded(theirs, common) else DIFFERENT, "congruence")
    known, other = (ours, right) if ours else (theirs, left)
    if known is None or not re.fullmatch(r"-?\d+(?:(?:,| ?and | ?or )-?\d+)*", other, re.ASCII):
        return None
    found = {int(each) for each in _NUMBER.findall(other)}
    if found == known.residues:
        return Verdict(EQUAL, "congruence")
    same_class = {each % known.modulus for each in found} == known.residues
    return Verdict(UNDECIDED if same_class else DIFFERENT, "congruence")


def _expanded(each: Congruence, modulus: int) -> set[int]:
    return {residue + each.modulus * k for residue in each.residues for k in range(modulus // each.modulus)}
