"""One file per training objective; the file name is the kind (nemo_ext/megatron/objective.py)."""
