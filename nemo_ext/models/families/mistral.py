"""Mistral 7B: a window on attention in its first version, and none later."""

from nemo_ext.models.family import Family

FAMILY = Family(
    defaults={"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    has_sliding_window=True,
    classifier="MistralForSequenceClassification",
)
