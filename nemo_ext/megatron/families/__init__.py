"""One file per architecture, which builds its layers: the `architecture` of a family (nemo_ext/models/family.py)."""
