"""Mixtral 8x7B, a teacher to be served: Mistral's decoder with eight experts a layer. It is not trained here."""

from nemo_ext.models.family import Family

FAMILY = Family(
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    architecture="moe_decoder",
    extra_keys=("num_local_experts", "num_experts_per_tok"),
)
