# make quickstart   install, then the whole pipeline at tiny scale
# make test         the whole suite          make check   format, lint, types, structure
# make test-bare    the part that uses optional tools, without them
# make contract     Transformer Engine's and SGLang's own Python against ours; downloads them (230 MB unpacked)
# make soak         what the suite shows, again and longer; with transformers 4 and vLLM, which it downloads
# make bench [ONLY=name]   what is in tests/bench, appended to bench.jsonl
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ONLY ?=
CHECKED ?= # what make check has run just before, as in CI

.PHONY: install quickstart test test-long test-launchers test-short test-bare contract wheels soak check format bench clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

quickstart: install
	$(BIN)/python launchers/run.py +recipe=openmathinstruct2 +scale=tiny

# three at once: the runs end to end and the cluster, which mostly wait; the launchers; the rest
STRUCTURE := tests/test_structure.py tests/test_recipes.py
LONG := tests/e2e tests/gpu tests/slurm
LAUNCHERS := tests/launchers tests/containers
CONTRACT := tests/contract

test: install
	$(MAKE) --no-print-directory -j3 test-long test-launchers test-short

test-long: install
	$(BIN)/python -m pytest $(LONG)

test-launchers: install
	$(BIN)/python -m pytest $(LAUNCHERS)

test-short: install
	$(BIN)/python -m pytest tests $(foreach folder,$(LONG) $(LAUNCHERS) $(CONTRACT) $(CHECKED),--ignore=$(folder))

wheels: install
	$(BIN)/python -m tests.contract.wheels transformer_engine sglang

contract: wheels
	$(BIN)/python -m pytest $(CONTRACT)

# what needs bubblewrap, Chromium, Slurm, ssh or shellcheck, as where there are none
BARE := tests/nemo_ext/sandbox tests/nemo_ext/explorer tests/containers tests/slurm tests/launchers/test_sbatch_bash.py tests/launchers/test_submit_host.py

test-bare: install
	$(BIN)/python -m tests.bare_path $(BARE)

soak: install
	$(BIN)/python -m tests.contract.wheels transformers4 vllm || echo "not downloaded: tests that need them are skipped"
	$(BIN)/python -m pytest -m soak tests

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(STRUCTURE)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m tests.bench.run $(ONLY)

clean:
	rm -rf $(VENV) .contract
