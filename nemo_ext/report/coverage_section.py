"""The report's section about prompt strategies: the rows of coverage.json, with what was published beside them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_ext.report.run_folder import Finished, manifests

FILE = "coverage.json"


def coverage(finished: Finished, published: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The tables of each stage that made one.

    Args:
        published: {"source": "a paper", "code_blocks": {"0": 16.4, ...}, "solutions": [{"source": "math", "strategies":
            ["default"], "coverage": 80.1, "unique": 177000}, ...]}, in percent; no strategies: all together.
    """
    tables = []
    for name, each in manifests(finished):
        if each["uses"] == "coverage":
            found = json.loads((finished[name] / FILE).read_text())
            tables.append({"stage": name, **_table(found, published or {})})
    return tables


def notes(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sources of which no sample is correct: figures about them stand on nothing."""
    groups = [group for table in tables for group in table["groups"] if group["source"] is not None]
    return [
        f"None of the {together['samples']:,} samples of {group['source']} is correct."
        for group in groups
        if not (together := group["rows"][-1])["correct"]
    ]


def _table(found: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    order, known = found["strategies"], published.get("solutions", [])
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        alone = [] if row["strategy"] is None else [row["strategy"]]
        so_far = order[: order.index(row["strategy"]) + 1] if alone else []
        beside = {
            "published": _of(known, row["source"], alone),
            "published_so_far": _of(known, row["source"], so_far) if len(so_far) > 1 else None,
        }
        groups.setdefault(row["source"], []).append(row | beside)
    shown = [row[key] for rows in groups.values() for row in rows for key in ("published", "published_so_far")]
    return {
        "stages": found["stages"],
        "groups": [{"source": source, "rows": rows} for source, rows in groups.items()],
        "unreadable": found["unreadable"],
        "has_duplicates": any("duplicate" in each for row in found["rows"] for each in row["dropped"].values()),
        "published": published.get("source", ""),
        "published_blocks": published.get("code_blocks", {}),
        "published_elsewhere": [each for each in known if each not in shown],
    }


def _of(known: Sequence[dict[str, Any]], source: str | None, strategies: Sequence[str]) -> dict[str, Any] | None:
    mine = (each for each in known if each["source"] == source and set(each["strategies"]) == set(strategies))
    return next(mine, None)
