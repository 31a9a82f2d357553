"""Audit how much of each benchmark is in a data set: figures, and a table to read in a terminal."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_ext.curation.contamination.candidates import EXACT, Hit
from nemo_ext.rows.row import Row

EXAMPLES = 3  # of a benchmark
SHOWN_CHARS = 300


@dataclass
class _Benchmark:
    size: int = 0
    tests: set[int] = field(default_factory=set)
    problems: int = 0
    rows: int = 0
    methods: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, Hit]] = field(default_factory=list)


class Audit:
    """Adds up what was found.

    Args:
        tests: the benchmark problems, in the order that Hit.test counts in.
        too_short: n -> [tests] which of them have fewer than n words, so that no n-gram can find them.
    """

    def __init__(self, tests: Sequence[Row], too_short: dict[int, list[bool]]) -> None:
        self._tests = tests
        self._benchmarks: dict[str, _Benchmark] = defaultdict(_Benchmark)
        for row in tests:
            self._benchmarks[row["benchmark"]].size += 1
        self._too_short = {
            n: Counter(row["benchmark"] for row, short in zip(tests, each, strict=True) if short)
            for n, each in too_short.items()
        }
        self.problems = self.rows = self.contaminated = self.contaminated_rows = 0
        self.undecided = 0
        """Pairs of which a judge's replies say neither."""
        self.first: Counter[str] = Counter()
        """Benchmark -> contaminated problems, each counted once, where its strongest evidence is."""

    def add(self, problem: str, num_rows: int, hits: Sequence[Hit]) -> None:
        self.problems += 1
        self.rows += num_rows
        if not hits:
            return
        self.contaminated += 1
        self.contaminated_rows += num_rows
        self.first[self._tests[hits[0].test]["benchmark"]] += 1
        methods: dict[str, set[str]] = defaultdict(set)
        for hit in hits:
            name = self._tests[hit.test]["benchmark"]
            if not methods[name] and len(self._benchmarks[name].examples) < EXAMPLES:
                self._benchmarks[name].examples.append((problem, hit))
            methods[name].add(hit.method)
            self._benchmarks[name].tests.add(hit.test)
        for name, each in methods.items():
            of = self._benchmarks[name]
            of.problems += 1
            of.rows += num_rows
            of.methods.update(each)

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "problems": self.problems,
            "contaminated": self.contaminated,
            "by_benchmark": dict(self.first),
            "rows": self.rows,
            "contaminated_rows": self.contaminated_rows,
            "undecided": self.undecided,
            "audit": {name: self._of(name) for name in sorted(self._benchmarks)},
        }

    def _of(self, name: str) -> dict[str, Any]:
        of = self._benchmarks[name]
        return {
            "size": of.size,
            "found": len(of.tests),
            "problems": of.problems,
            "rows": of.rows,
            "methods": dict(sorted(of.methods.items())),
            "too_short": {f"{n}-gram": counts[name] for n, counts in sorted(self._too_short.items())},
        }

    def markdown(self, title: str, methods: Sequence[str]) -> str:
        """`methods`: those that were looked for, one column each."""
        share = f"{_share(self.contaminated, self.problems)} of the problems"
        lines = [
            f"# {title}",
            "",
            f"{self.problems:,} different problems ({self.rows:,} rows) were compared with {len(self._tests):,} benchmark "
            f"problems: {self.contaminated:,} are contaminated ({share}), {self.contaminated_rows:,} rows "
            f"({_share(self.contaminated_rows, self.rows)}).",
            "",
            *self._table(methods),
            "",
            "in data: the benchmark's problems that have a copy in the data. problems, rows: those of the data that are a "
            "copy of one of the benchmark's; then how the problems were found, those found in several ways in each column.",
        ]
        lines += [f"- {note}" for note in self._notes()]
        for name in sorted(self._benchmarks):
            lines += self._shown(name)
        return "\n".join(lines) + "\n"

    def _table(self, methods: Sequence[str]) -> list[str]:
        head = ["benchmark", "size", "in data", "share", "problems", "share", "rows", *methods]
        body = []
        for name in sorted(self._benchmarks):
            of = self._benchmarks[name]
            found = [str(of.size), str(len(of.tests)), _share(len(of.tests), of.size)]
            found += [f"{of.problems:,}", _share(of.problems, self.problems), f"{of.rows:,}"]
            body.append([name, *found, *(f"{of.methods[method]:,}" for method in methods)])
        widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
        rule = [f"{'-' * (width - 1)}:" if column else "-" * width for column, width in enumerate(widths)]
        return [
            "| "
            + " | ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
            for row in [head, rule, *body]
        ]

    def _notes(self) -> list[str]:
        notes = []
        for n, counts in sorted(self._too_short.items()):
            short = ", ".join(f"{count:,} of {name}" for name, count in sorted(counts.items()))
            if short:
                notes.append(f"shorter than {n} words, so that no {n}-gram can find them: {short}")
        if self.undecided:
            notes.append(f"{self.undecided:,} pairs were not decided: the judge's replies say neither true nor false")
        return notes

    def _shown(self, name: str) -> list[str]:
        lines = []
        for problem, hit in self._benchmarks[name].examples:
            test = self._tests[hit.test]
            run = f' "{hit.words}"' if hit.words else ""
            how = hit.method if hit.method == EXACT else f"{hit.method} {hit.score:.2f}{run}"
            lines += [f"- {how}: {_short(problem)}", f"  - {test['id']}: {_short(test['problem'])}"]
        return ["", f"## {name}", "", *lines] if lines else []


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else f"{line[: SHOWN_CHARS - 3]}..."
