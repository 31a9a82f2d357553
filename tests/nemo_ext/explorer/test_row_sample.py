import json
from collections import Counter
from pathlib import Path

from nemo_ext.explorer.row_sample import HELD_BYTES, KEPT, NO_REASON, Reservoir, sample_rows
from tests.nemo_ext.explorer.explored_runs import write_lines


def test_every_line_has_the_same_chance() -> None:
    chosen: Counter[int] = Counter()
    for seed in range(600):
        reservoir = Reservoir(5, str(seed))
        for n in range(20):
            reservoir.offer(b"%d" % n)
        assert reservoir.seen == 20 and len(reservoir.lines) == 5
        chosen.update(int(line) for line in reservoir.lines)
    assert min(chosen.values()) > 105 and max(chosen.values()) < 200  # 150 each, standard deviation 10.6


def test_a_seed_decides_the_sample_and_files_its_order(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"n": n} for n in range(500)])
    write_lines(tmp_path / "b.jsonl", [{"n": n} for n in range(500, 900)])

    def drawn(seed: str) -> list[int]:
        found = sample_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], [], 30, 5, seed)
        return [json.loads(line)["n"] for line in found[KEPT].lines]

    first = drawn("s")
    assert first == sorted(first) == drawn("s") != drawn("t") and first[-1] >= 500


def test_each_reason_has_its_own_sample_and_its_count(tmp_path: Path) -> None:
    rows = [{"n": n, "reason": "often" if n % 10 else "seldom"} for n in range(1000)]
    write_lines(tmp_path / "dropped.jsonl", rows)
    with (tmp_path / "dropped.jsonl").open("a") as handle:
        handle.write('{"torn": ')
    found = sample_rows([], [tmp_path / "dropped.jsonl"], 10, 40, "s")
    assert [(reason, each.seen, len(each.lines)) for reason, each in found.items()] == [
        (KEPT, 0, 0), ("often", 900, 40), ("seldom", 100, 40), (NO_REASON, 1, 1),
    ]  # fmt: skip


def test_a_huge_row_is_not_held(tmp_path: Path) -> None:
    write_lines(tmp_path / "output.jsonl", [{"text": "x" * 5_000_000, "tokens": list(range(400_000))}])
    (line,) = sample_rows([tmp_path / "output.jsonl"], [], 5, 5, "s")[KEPT].lines
    assert len(line) < HELD_BYTES and json.loads(line)["text"].endswith("more characters")
