"""The machine a stage runs on: GPUs, processes, ports."""
