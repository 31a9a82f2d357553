"""One stage per file, found by file name: docstring with an example row, Config, run(cfg)."""
