"""Llama's decoder and its like: one GPTModel per model chunk, every layer alike, made of what layers/kernels.py chooses."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes
from megatron.core.transformer.module import Float16Module, MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_ext.megatron.layers.attention import Pack, bounds, segments
from nemo_ext.megatron.layers.context_parallel import TOKEN_KEYS
from nemo_ext.megatron.layers.dropout_layer import EmbeddingDropout
from nemo_ext.megatron.layers.kernels import choose_layers, has, hidden_dropout, uses_transformer_engine
from nemo_ext.megatron.layers.regression_head import RegressionHead
from nemo_ext.megatron.runtime.optimizer import DTYPES
from nemo_ext.megatron.runtime.parallel import Parallel
from nemo_ext.megatron.settings import ForwardSettings, Optimisation, pack_length, padded_vocab
from nemo_ext.megatron.weights.families.decoder import ROW_PARALLEL, canonical_name
from nemo_ext.models.head import SCORE, Regression
from nemo_ext.models.rope import inverse_frequencies
from nemo_ext.models.shape import ModelShape

logger = logging.getLogger(__name__)
WHOLE = ("layernorm.weight", "layer_norm_weight", SCORE)
"""Ends of the keys of weights that every tensor parallel rank has whole."""
FP8_HISTORY = 1024
"""Steps whose largest values delayed scaling looks at; Transformer Engine's default and Megatron's published runs'."""


class LlamaModel(GPTModel):
    """GPTModel that never lets vocabulary padding take part in the loss, and makes its own packs.

    `chunk` is which of this process's model chunks it is (parallel.chunk_place).
    """

    def __init__(
        self,
        shape: ModelShape,
        parallel: Parallel,
        chunk: int,
        padded_vocab: int,
        rotates: bool,
        hidden_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        place = parallel.chunk_place(chunk)
        super().__init__(
            vocab_size=padded_vocab,
            pre_process=place == 0,
            post_process=place == parallel.num_places - 1,
            share_embeddings_and_output_weights=shape.tied_embeddings,
            position_embedding_type="rope" if rotates else "none",
            vp_stage=chunk if parallel.num_chunks > 1 else None,
            **kwargs,
        )
        self.head = shape.head
        if self.post_process and isinstance(shape.head, Regression):
            del self.output_layer
            self.score = RegressionHead(self.config, shape.head.outputs, parallel.device)
        each = padded_vocab // parallel.tensor_size
        self.num_pad_rows = max(0, min(each, (parallel.tensor_rank + 1) * each - shape.vocab_size))
        self.rotates = rotates
        self.first_layer = place * shape.num_layers // parallel.num_places
        """Index in the whole model of this chunk's first layer."""
        self.frequencies = inverse_frequencies(shape).to(parallel.device)
        if rotates:
            self.rotary_pos_emb.inv_freq = self.frequencies
        if self.pre_process and hidden_dropout:
            self.embedding.embedding_dropout = EmbeddingDropout(hidden_dropout)
        self.sequence_part = (parallel.tensor_rank, parallel.tensor_size) if self.config.sequence_parallel else (0, 1)
        """Which of how many runs of this rank's tokens its hidden states are of."""

    def pack_params(self, batch: dict[str, Any], part: dict[str, Any]) -> Pack:
        """The samples of a micro-batch (batches.microbatch, on this rank's device) as the layers want them; `part` is
        what this rank holds of it (context.local_part)."""
        pack = self._bounds(batch, part)
        if TOKEN_KEYS in batch:
            rank, size = self.sequence_part
            pack.token_keys, pack.hidden_keys = batch[TOKEN_KEYS][0], part[TOKEN_KEYS][0].chunk(size)[rank]
        return pack

    def _bounds(self, batch: dict[str, Any], part: dict[str, Any]) -> Pack:
        if self.rotates:
            return Pack(**bounds(batch, part))
        scores = isinstance(self.head, Regression)
        return segments(batch, part, self.frequencies, self.config.params_dtype, every_sample=scores)

    def forward(self, *args: Any, packed_seq_params: Pack, **kwargs: Any) -> torch.Tensor:
        if self.pre_process and isinstance(self.embedding.embedding_dropout, EmbeddingDropout):
            self.embedding.embedding_dropout.keys = packed_seq_params.hidden_keys
        return super().forward(*args, packed_seq_params=packed_seq_params, **kwargs)

    def _postprocess(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Losses of the trained positions, and the logits of these alone: most of a pack is prompt. The others' losses are
        0. Without labels the logits of every position; of a regression head its outputs of every position.

        With sequence parallelism the positions are spread over the ranks, and all of them are computed.
        """
        pack, labels = kwargs["packed_seq_params"], kwargs["labels"]
        if self.post_process and isinstance(self.head, Regression):
            return self.score(hidden_states)
        if self.post_process and labels is None:
            return self.without_padding(super()._postprocess(hidden_states, **kwargs))
        if not self.post_process or self.config.sequence_parallel:
            return super()._postprocess(hidden_states, **kwargs)
        kwargs["labels"] = labels.index_select(1, pack.trained)
        losses = super()._postprocess(hidden_states.index_select(0, pack.trained), **kwargs)
        return losses.new_zeros(labels.shape).index_copy(1, pack.trained, losses)

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy per token, fp32 [batch, tokens]; pad rows get no probability and no gradient."""
        return super().compute_language_model_loss(labels, self.without_padding(logits))

    def without_padding(self, logits: torch.Tensor) -> torch.Tensor:
        """This rank's logits [..., V / TP] with the lowest value there is in the vocabulary's pad rows."""
        if not self.num_pad_rows:
            return logits
        kept = logits[..., : logits.shape[-1] - self.num_pad_rows]
        return F.pad(kept, (0, self.num_pad_rows), value=torch.finfo(logits.dtype).min)

    def cross_entropy(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The losses of logits without padding [batch, tokens, V / TP] that are needed again: Megatron works in place."""
        return super().compute_language_model_loss(labels, logits.transpose(0, 1).clone())

    def sharded_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What a checkpoint has of this chunk. GPTModel's own asks for an output layer, which a regression has not."""
        if isinstance(self.head, Regression):
            return MegatronModule.sharded_state_dict(self, *args, **kwargs)
        return super().sharded_state_dict(*args, **kwargs)


def build(settings: ForwardSettings, shape: ModelShape, parallel: Parallel) -> list[torch.nn.Module]:
    """This process's model chunks in order, weights not yet set, in the settings' precision on this rank's device."""
    config = transformer_config(settings, shape, parallel)
    layers = choose_layers(settings, parallel.device)
    if parallel.rank == 0:
        logger.info("layers: %s", layers.reason)
    block = TransformerBlockSubmodules(
        layer_specs=[layers.layer] * (shape.num_layers // parallel.num_places), layer_norm=layers.norm
    )
    chunks = [
        LlamaModel(
            shape,
            parallel,
            chunk,
            padded_vocab(settings, shape),
            rotates=not layers.own_attention,
            hidden_dropout=hidden_dropout(settings),
            config=config,
            transformer_layer_spec=block,
            max_sequence_length=pack_length(settings),
            rotary_base=int(shape.rope_theta),
        )
        for chunk in range(parallel.num_chunks)
    ]
    for chunk in chunks:
        _mark_split_weights(chunk)
    return [Float16Module(config, chunk) if config.bf16 else chunk for chunk in chunks]


def _mark_split_weights(chunk: LlamaModel) -> None:
    """Megatron marks the weights it splits over tensor parallel ranks only when it initialises them, which is left out
    here because they are loaded; unmarked, the gradient norm would count those of one rank alone."""
    for name, parameter in chunk.named_parameters():
        key, _ = canonical_name(name)
        if not key.endswith(WHOLE) and not hasattr(parameter, "tensor_model_parallel"):
            set_tensor_model_parallel_attributes(parameter, True, int(key in ROW_PARALLEL), 1)


def transformer_config(settings: ForwardSettings, shape: ModelShape, parallel: Parallel) -> TransformerConfig:
    """Megatron's configuration of one Llama; the loss is summed over tokens and divided by their global count.

    A virtual pipeline sends its messages one by one, as Megatron-LM's arguments.py does: where two stages are each
    other's previous and next, a batch of messages holds two in either direction, which are matched in the wrong order,
    and training takes one chunk's activations for another's.
    """
    dtype = DTYPES[settings.precision]
    on_gpu = parallel.device.type == "cuda"
    engine = uses_transformer_engine(settings, parallel.device)
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
        add_qkv_bias=shape.qkv_bias,
        hidden_dropout=0.0,  # Megatron's own; layers/dropout.py has the one that is used
        attention_dropout=settings.attention_dropout if isinstance(settings, Optimisation) else 0.0,
        tensor_model_parallel_size=parallel.tensor_size,
        pipeline_model_parallel_size=parallel.pipeline_size,
        virtual_pipeline_model_parallel_size=settings.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_size,
        sequence_parallel=settings.sequence_parallel,
        overlap_p2p_comm=parallel.num_chunks > 1,
        batch_p2p_comm=parallel.num_chunks == 1,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=settings.precision == "bf16",
        calculate_per_token_loss=True,
        deterministic_mode=settings.deterministic_mode and on_gpu,
        perform_initialization=False,
        use_cpu_initialization=not on_gpu,
        **(_recompute(settings) if isinstance(settings, Optimisation) else {}),
        fp8=settings.fp8,
        fp8_recipe=settings.fp8_recipe,
        fp8_amax_history_len=FP8_HISTORY,
        fp8_amax_compute_algo="max",
        first_last_layers_bf16=bool(settings.num_layers_at_start_in_bf16 or settings.num_layers_at_end_in_bf16),
        num_layers_at_start_in_bf16=settings.num_layers_at_start_in_bf16,
        num_layers_at_end_in_bf16=settings.num_layers_at_end_in_bf16,
        bias_activation_fusion=on_gpu,
        masked_softmax_fusion=False,
        persist_layer_norm=engine,
        apply_rope_fusion=engine,
        gradient_accumulation_fusion=engine and has("fused_weight_gradient_mlp_cuda"),
    )


def _recompute(settings: Optimisation) -> dict[str, Any]:
    """What the backward pass computes again."""
    whole = settings.recompute_granularity == "full"
    return {
        "recompute_granularity": settings.recompute_granularity,
        "recompute_method": settings.recompute_method if whole else None,
        "recompute_num_layers": settings.recompute_num_layers if whole else None,
    }
