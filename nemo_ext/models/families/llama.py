"""Llama 1 to 3, and DeepSeek's LLM and Math models, which call themselves Llamas."""

from nemo_ext.models.family import Family

FAMILY = Family(defaults={"max_position_embeddings": 2048}, classifier="LlamaForSequenceClassification")
