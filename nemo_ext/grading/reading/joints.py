"""Commas, "and"s and "or"s between the items of an answer: a list, one value, or alternatives.

joined((<x > 2>, <x < 5>), ("and",))  ->  ("all", (<x > 2>, <x < 5>))
"""

from typing import Any

Node = tuple[Any, ...]


def joined(items: tuple[Node, ...], joints: tuple[str, ...]) -> Node:
    """Conditions joined by "and" are ("all", ...), by "or" ("any", ...); by commas alone either may be meant. Other items
    are a list, however they are joined; "x=1, y=2 or x=2, y=1" is a list of two lists."""
    alternatives: list[list[Node]] = [[items[0]]]
    for joint, item in zip(joints, items[1:], strict=True):
        if joint == "or":
            alternatives.append([item])
        else:
            alternatives[-1].append(item)
    if not all(map(is_condition, items)):
        is_nested = len(alternatives) > 1 and all(len(each) > 1 for each in alternatives)
        if is_nested and all(item[0] == "relation" for item in items):
            return ("list", tuple(("list", tuple(each)) for each in alternatives))
        return ("list", items)
    if "and" in joints:
        together = tuple(each[0] if len(each) == 1 else ("all", tuple(each)) for each in alternatives)
        return together[0] if len(together) == 1 else ("any", together)
    return ("any" if "or" in joints else "list", items)


def is_condition(node: Node) -> bool:
    """An inequality or a membership, which says more of a variable than its one value."""
    return bool(node[0] == "relation" and set(node[1]) != {"="})
