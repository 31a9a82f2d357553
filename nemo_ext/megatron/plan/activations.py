"""GPU memory of activations on a pipeline stage: what waits for backward passes, and what a pass itself holds."""

from collections.abc import Sequence

from nemo_ext.megatron.objective import trained_shape
from nemo_ext.megatron.plan.pipeline import chunk_layers, most_in_flight, recomputed_groups, stage_layers
from nemo_ext.megatron.settings import ForwardSettings, TrainSettings, pack_length, padded_vocab
from nemo_ext.models.head import Regression
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.shape import ModelShape


def layer_bytes_per_token(
    layer: LayerCost,
    *,
    tensor: int = 1,
    sequence_parallel: bool = False,
    selective: bool = False,
    element: int = 2,
) -> float:
    """What a layer keeps per token for its backward pass, bytes on one of `tensor` GPUs; `selective`: recompute."""
    whole = element * layer.kept_whole
    split = element * layer.kept_split + (0 if selective else 4 * layer.kept_statistics)
    return (whole + split) / tensor if sequence_parallel else whole + split / tensor


def _kept(layers: Sequence[LayerCost], shape: ModelShape, settings: TrainSettings) -> float:
    """Bytes that these layers keep of one micro-batch."""
    layer = LayerCost.total(layers)
    tensor, context = settings.tensor_model_parallel_size, settings.context_parallel_size
    per_token = layer_bytes_per_token(
        layer,
        tensor=tensor,
        sequence_parallel=settings.sequence_parallel,
        selective=settings.recompute_granularity == "selective",
        element=element_bytes(settings),
    )
    if context > 1:
        # Attention is attention.py's, which copies its result; where a rank's heads are not whole groups
        # (context.gather_groups) it repeats keys and values too.
        copies = layer.kept_in_context
        if shape.num_heads // tensor // context % (shape.num_heads // shape.num_kv_heads):
            copies += layer.kept_in_context_repeated
        per_token += element_bytes(settings) * copies / tensor
    return per_token * local_tokens(settings)


def activations(shape: ModelShape, settings: TrainSettings, stage: int) -> float:
    """Bytes kept from forward to backward, of all micro-batches in flight, and those of what is being recomputed."""
    hidden = element_bytes(settings) * shape.hidden_size * local_tokens(settings)
    if settings.sequence_parallel:
        hidden /= settings.tensor_model_parallel_size
    sizes, recomputed = [], 0.0
    for layers in chunk_layers(shape, settings, stage):
        groups, others = recomputed_groups(layers, settings)
        sizes.append(len(groups) * hidden + _kept(others, shape, settings))
        recomputed = max([recomputed, *(_kept(group, shape, settings) for group in groups)])
    final_norm = 2 * hidden if stage == settings.pipeline_model_parallel_size - 1 else 0.0
    return most_in_flight(settings, stage, sizes) + recomputed + final_norm


def temporary(shape: ModelShape, settings: TrainSettings, stage: int) -> float:
    """Bytes of the larger of the head's results with their gradient and of what one layer's backward pass holds."""
    tokens, tensor, element = local_tokens(settings), settings.tensor_model_parallel_size, element_bytes(settings)
    backward = max(
        tokens * element * (layer.gradients_whole + layer.gradients_split / tensor)
        for layer in stage_layers(shape, settings, stage)
    )
    if stage < settings.pipeline_model_parallel_size - 1:
        return backward
    head = trained_shape(settings.objective, shape).head
    if isinstance(head, Regression):  # its outputs in the model's dtype and in fp32, and the input it has gathered
        gathered = 2 * element * shape.hidden_size if settings.sequence_parallel else 0
        return max(backward, tokens * (gathered + (element + 4) * head.outputs))
    # Logits, their copy with pad rows masked, and the fp32 one that becomes softmax and gradient in place. Of every
    # token: the trainer leaves out what is not trained, but a pack may be nearly all trained.
    padded = padded_vocab(settings, shape)
    each = element * (2 if padded > shape.vocab_size else 1) + 4
    return max(backward, tokens * each * padded / tensor)


def local_tokens(settings: ForwardSettings) -> float:
    """Tokens of a micro-batch on one context parallel rank."""
    return pack_length(settings) / settings.context_parallel_size


def element_bytes(settings: ForwardSettings) -> int:
    return 2 if settings.precision == "bf16" else 4
