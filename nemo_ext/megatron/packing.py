"""Best-fit-decreasing packing over a histogram of residuals: which samples share a micro-batch of `capacity` tokens.

Longest sample first, each into the open pack with the least room that still holds it. Packs are grouped by their
residual room, and a bitset over the residuals finds the tightest fit in O(capacity / 64), so the whole is
O(n * capacity / 64) rather than O(n * packs).
"""

from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of indices into `lengths` (tokens); every index appears once and no pack exceeds `capacity` tokens.

    Deterministic: equal lengths keep their order.

    Raises:
        ValueError: a sample longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if order and lengths[order[0]] > capacity:
        raise ValueError(f"sample {order[0]} has {lengths[order[0]]} tokens, more than the pack length {capacity}")
    packs: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room -> indices of packs with that room
    rooms = 0  # bit r is set when by_room[r] is not empty
    for index in order:
        length = lengths[index]
        candidates = rooms >> length
        if candidates:
            room = length + (candidates & -candidates).bit_length() - 1
            pack = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, pack = capacity, len(packs)
            packs.append([])
        packs[pack].append(index)
        left = room - length
        by_room[left].append(pack)
        rooms |= 1 << left
    return packs


def efficiency(lengths: Sequence[int], packs: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the packs' tokens that belong to samples, 0 to 1."""
    return sum(lengths) / (len(packs) * capacity) if packs else 0.0
