"""One file per model family; the file name is the `model_type` of its config.json (nemo_ext/models/family.py)."""
