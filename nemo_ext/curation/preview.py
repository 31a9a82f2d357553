"""Preview what each filter and edit would do to the first rows of a file, before anything is written."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nemo_ext.curation.arithmetic.statements import wrong_statement
from nemo_ext.curation.filter_chain import Chain, Step, with_solution
from nemo_ext.curation.filters.context import Context, Row

EXAMPLES = 3
SHOWN_CHARS = 88


@dataclass
class StepPreview:
    """One step on its own, that is after the edits before it but not the filters, and where it stands in the chain."""

    step: str
    is_edit: bool
    alone: int = 0
    """Rows it would drop, or whose solution it would change."""
    in_order: int = 0
    """Rows it drops that no filter before it has dropped."""
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Preview:
    rows: int = 0
    kept: int = 0
    unusable: dict[str, int] = field(default_factory=dict)
    steps: list[StepPreview] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(rows: Iterable[Row], steps: Sequence[Step], context: Context) -> Preview:
    """Every step tried on every row."""
    result = Preview(steps=[StepPreview(step.name, step.is_edit) for step in steps])
    for row in rows:
        result.rows += 1
        edited, unusable = with_solution(row)
        if unusable:
            result.unusable[unusable] = result.unusable.get(unusable, 0) + 1
            continue
        result.kept += _try(edited, steps, context, result)
    return result


def _try(row: Row, steps: Sequence[Step], context: Context, result: Preview) -> bool:
    """Whether the row would be kept."""
    kept = True
    for step, about in zip(steps, result.steps, strict=True):
        before = row["generated_solution"]
        row, reason = Chain([step], context)(row)
        if step.is_edit:
            changed = row["generated_solution"] != before
            about.alone += changed
            about.in_order += changed and kept
            evidence = _change(before, row["generated_solution"]) if changed else ""
        else:
            about.alone += reason is not None
            about.in_order += reason is not None and kept
            kept = kept and reason is None
            evidence = _evidence(row, step, reason) if reason else ""
        if evidence and len(about.examples) < EXAMPLES:
            about.examples.append({"id": row.get("id"), "why": evidence})
    return kept


def _change(before: str, after: str) -> str:
    if before.startswith(after):
        return f"cut: {_shown(before[len(after) :])}"
    return f"cut: {_shown(before[: -len(after)])}" if after and before.endswith(after) else f"now: {_shown(after)}"


def _evidence(row: Row, step: Step, reason: str) -> str:
    """What a person would look for in the row."""
    solution = row["generated_solution"]
    if step.name == "incorrect":
        return f"{reason}: {row.get('predicted_answer')!s} instead of {row.get('expected_answer')!s}"
    if step.name == "incorrect_arithmetic":
        return _shown(wrong_statement(solution, step.params.get("rel_tol", 1e-4)) or "")
    if step.name.startswith(("problem_", "solution_too")):
        text = row["problem"] if step.name.startswith("problem_") else solution
        return f"{len(text):,} characters: {_shown(text)}"
    return f"... {_shown(solution, end=True)}"


def _shown(text: str, end: bool = False) -> str:
    """On one line, without what a terminal would act on."""
    part = text[-4 * SHOWN_CHARS :] if end else text[: 4 * SHOWN_CHARS]
    line = "".join(character if character.isprintable() else " " for character in " ".join(part.split()))
    return line[-SHOWN_CHARS:] if end else line[:SHOWN_CHARS]


def render(result: Preview, source: str) -> str:
    """A table and examples for a terminal of 100 columns, without colours."""
    total = max(1, result.rows)
    lines = [
        f"The first {result.rows:,} rows of {source}. alone: after the edits above, not the filters; in order: as listed.",
        "",
        f"  {'step':<24} {'alone':>8} {'share':>8} {'in order':>9}",
    ]
    for reason, count in result.unusable.items():
        lines.append(f"  {reason:<24} {count:>8,} {count / total:>8.1%} {count:>9,}")
    for about in result.steps:
        note = "  changed, not dropped" if about.is_edit else ""
        lines.append(f"  {about.step:<24} {about.alone:>8,} {about.alone / total:>8.1%} {about.in_order:>9,}{note}")
    lines.append(f"  {'kept':<24} {'':>8} {result.kept / total:>8.1%} {result.kept:>9,}")
    for about in result.steps:
        if about.examples:
            lines += ["", about.step, *(f"  {example['id']}: {example['why']}" for example in about.examples)]
    return "\n".join(lines)
