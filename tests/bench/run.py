"""Run tests/bench/bench_<name>.py and append one JSON object per figure to bench.jsonl.

`make bench` runs them all, `make bench ONLY=packing` one. A bench module has `run()`, which yields
{"name", "value", "unit", "target", "peer", "ratio"}; ratio is ours against the peer measured in the same run. One that needs
data from outside the repository lists the files in `NEEDS`; where one is missing, that is said and the bench not run.
"""

import importlib
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
KEYS = ("name", "value", "unit", "target", "peer", "ratio")


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(argv: list[str]) -> int:
    chosen = argv[1:] or names()
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        print(f"error: no bench {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    measured = 0
    for name in chosen:
        module = importlib.import_module(f"tests.bench.bench_{name}")
        if missing := [str(path) for path in getattr(module, "NEEDS", ()) if not path.exists()]:
            print(f"bench {name}: not measured, there is no {', no '.join(missing)}", file=sys.stderr)
            continue
        measured += 1
        for figure in module.run():
            command = f"make bench ONLY={name}"
            line = {key: figure.get(key) for key in KEYS} | {"command": command, "date": time.strftime("%Y-%m-%d")}
            print(json.dumps(line), flush=True)
            with (ROOT / "bench.jsonl").open("a") as handle:
                handle.write(json.dumps(line) + "\n")
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
