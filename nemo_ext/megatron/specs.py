"""Build the GPTModel of this pipeline stage: the one place that chooses the layers.

With CUDA and Transformer Engine the layers are Transformer Engine's, with its fused attention over packed samples
(unproven here: there was no GPU). Otherwise they are megatron-core's local layers with attention.py in them.
"""

import importlib.util
import logging
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_ext.megatron.attention import PackedAttention, PackedSegments, RMSNorm, segments
from nemo_ext.megatron.parallel import Parallel
from nemo_ext.megatron.rope import inverse_frequencies
from nemo_ext.megatron.settings import TrainSettings, pack_length
from nemo_ext.megatron.shape import ModelShape

logger = logging.getLogger(__name__)


class LlamaModel(GPTModel):
    """GPTModel that never lets vocabulary padding take part in the loss, and makes its own packs."""

    def __init__(self, shape: ModelShape, parallel: Parallel, padded_vocab: int, rotates: bool, **kwargs: Any) -> None:
        super().__init__(
            vocab_size=padded_vocab,
            pre_process=parallel.is_first_stage,
            post_process=parallel.is_last_stage,
            share_embeddings_and_output_weights=shape.tied_embeddings,
            position_embedding_type="rope" if rotates else "none",
            **kwargs,
        )
        each = padded_vocab // parallel.tensor_size
        self.num_pad_rows = max(0, min(each, (parallel.tensor_rank + 1) * each - shape.vocab_size))
        self.rotates = rotates
        self.frequencies = inverse_frequencies(shape).to(parallel.device)
        if rotates:
            self.rotary_pos_emb.inv_freq = self.frequencies

    def pack_params(self, batch: dict[str, Any]) -> PackedSeqParams:
        """The segments of a micro-batch (data.microbatch, on this rank's device) as the layers want them."""
        if not self.rotates:
            return segments(batch, self.frequencies, self.config.params_dtype)
        bounds, longest = batch["cu_seqlens"], batch["max_seqlen"]
        return PackedSeqParams(
            qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=longest, max_seqlen_kv=longest
        )

    def _postprocess(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Logits and losses of the trained positions alone: most of a pack is prompt. The others' losses are 0.

        With sequence parallelism the positions are spread over the ranks, and all of them are computed.
        """
        pack, labels = kwargs["packed_seq_params"], kwargs["labels"]
        if not (self.post_process and labels is not None and isinstance(pack, PackedSegments)):
            return super()._postprocess(hidden_states, **kwargs)
        if self.config.sequence_parallel:
            return super()._postprocess(hidden_states, **kwargs)
        kwargs["labels"] = labels.index_select(1, pack.trained)
        losses = super()._postprocess(hidden_states.index_select(0, pack.trained), **kwargs)
        return losses.new_zeros(labels.shape).index_copy(1, pack.trained, losses)

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy per token, fp32 [batch, tokens]; pad rows get no probability and no gradient."""
        if self.num_pad_rows:
            kept = logits[..., : logits.shape[-1] - self.num_pad_rows]
            logits = F.pad(kept, (0, self.num_pad_rows), value=torch.finfo(logits.dtype).min)
        return super().compute_language_model_loss(labels, logits)


def padded_vocab(settings: TrainSettings, shape: ModelShape) -> int:
    """Rows of the embedding over all tensor parallel ranks."""
    return shape.padded_vocab(settings.make_vocab_size_divisible_by * settings.tensor_model_parallel_size)


def build_model(settings: TrainSettings, shape: ModelShape, parallel: Parallel) -> torch.nn.Module:
    """This stage's model, weights not yet set, in the settings' precision on this rank's device."""
    config = transformer_config(settings, shape, parallel)
    layer, norm, reason = _layer_spec(parallel.device)
    if parallel.rank == 0:
        logger.info("layers: %s", reason)
    uses_engine = norm is not RMSNorm
    block = TransformerBlockSubmodules(
        layer_specs=[layer] * (shape.num_layers // parallel.pipeline_size), layer_norm=norm
    )
    model = LlamaModel(
        shape,
        parallel,
        padded_vocab(settings, shape),
        rotates=uses_engine,
        config=config,
        transformer_layer_spec=block,
        max_sequence_length=pack_length(settings),
        rotary_base=int(shape.rope_theta),
    )
    return Float16Module(config, model) if config.bf16 else model


def unwrap(model: torch.nn.Module) -> LlamaModel:
    """The LlamaModel inside the bf16 and the data parallel wrapper, if there are."""
    while not isinstance(model, LlamaModel):
        inner = model.module
        assert isinstance(inner, torch.nn.Module), f"no LlamaModel inside {type(model).__name__}"
        model = inner
    return model


def transformer_config(settings: TrainSettings, shape: ModelShape, parallel: Parallel) -> TransformerConfig:
    """Megatron's configuration of one Llama; the loss is summed over tokens and divided by their global count."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    on_gpu = parallel.device.type == "cuda"
    engine = on_gpu and _has("transformer_engine")
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_size,
        num_attention_heads=shape.num_heads,
        num_query_groups=shape.num_kv_heads,
        kv_channels=shape.head_dim,
        layernorm_epsilon=shape.norm_eps,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=parallel.tensor_size,
        pipeline_model_parallel_size=parallel.pipeline_size,
        sequence_parallel=settings.sequence_parallel,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=settings.precision == "bf16",
        calculate_per_token_loss=True,
        perform_initialization=False,
        use_cpu_initialization=not on_gpu,
        recompute_granularity=settings.recompute_granularity,
        recompute_method="uniform" if settings.recompute_granularity == "full" else None,
        recompute_num_layers=1 if settings.recompute_granularity == "full" else None,
        bias_activation_fusion=on_gpu,
        masked_softmax_fusion=False,
        persist_layer_norm=engine,
        apply_rope_fusion=engine,
        gradient_accumulation_fusion=engine and _has("fused_weight_gradient_mlp_cuda"),
    )


def _layer_spec(device: torch.device) -> tuple[ModuleSpec, type, str]:
    """The layer, its final norm, and why."""
    if device.type == "cuda" and _has("transformer_engine"):
        from megatron.core.extensions.transformer_engine import TENorm
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec

        return get_gpt_layer_with_transformer_engine_spec(), TENorm, "Transformer Engine's (it is installed)"
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.input_layernorm = RMSNorm
    spec.submodules.pre_mlp_layernorm = RMSNorm
    spec.submodules.self_attention.submodules.core_attention = PackedAttention
    why = "there is no GPU" if device.type == "cpu" else "Transformer Engine is not installed"
    return spec, RMSNorm, f"megatron-core's local ones with torch attention ({why})"


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
