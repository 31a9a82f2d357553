"""One file per way of merging; the file name is the kind (nemo_ext/megatron/merging/method.py)."""
