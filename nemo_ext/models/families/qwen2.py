"""Qwen2 and Qwen2.5: query, key and value projections have biases."""

from nemo_ext.models.family import Family

FAMILY = Family(
    defaults={"max_position_embeddings": 32768},
    qkv_bias=True,
    classifier="Qwen2ForSequenceClassification",
)
