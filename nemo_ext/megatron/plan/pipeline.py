"""Layers of a pipeline stage's model chunks: which they are, which run twice, and which wait for their backward pass."""

from collections.abc import Sequence

from nemo_ext.megatron.settings import ForwardSettings, TrainSettings
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.shape import ModelShape


def num_chunks(settings: ForwardSettings) -> int:
    """Model chunks of each stage."""
    return settings.virtual_pipeline_model_parallel_size or 1


def chunk_layers(shape: ModelShape, settings: ForwardSettings, stage: int) -> list[Sequence[LayerCost]]:
    """The layers of each of a stage's chunks: as Parallel.chunk_place has it, the chunks of the stages alternate."""
    pipeline, chunks = settings.pipeline_model_parallel_size, num_chunks(settings)
    count = shape.num_layers // (pipeline * chunks)
    places = [chunk * pipeline + stage for chunk in range(chunks)]
    return [shape.layers[place * count : (place + 1) * count] for place in places]


def stage_layers(shape: ModelShape, settings: ForwardSettings, stage: int) -> list[LayerCost]:
    """All layers of a stage."""
    return [layer for chunk in chunk_layers(shape, settings, stage) for layer in chunk]


def recomputed_groups(
    layers: Sequence[LayerCost], settings: TrainSettings
) -> tuple[list[Sequence[LayerCost]], Sequence[LayerCost]]:
    """Groups of a chunk's layers that recompute_granularity=full runs again together, from the one input they keep, and
    the layers that keep everything. "uniform" makes groups of all layers, "block" runs the first ones again singly."""
    if settings.recompute_granularity != "full":
        return [], layers
    count = settings.recompute_num_layers
    if settings.recompute_method == "uniform":
        return [layers[first : first + count] for first in range(0, len(layers), count)], []
    return [[layer] for layer in layers[:count]], layers[count:]


def chunks_in_flight(settings: ForwardSettings, stage: int) -> int:
    """Model chunks of a stage whose activations are held at once by Megatron's 1F1B schedule: micro-batches, without
    virtual stages. Enough micro-batches to fill the pipeline are assumed."""
    pipeline, chunks = settings.pipeline_model_parallel_size, num_chunks(settings)
    if chunks == 1:
        return pipeline - stage
    return 2 * (pipeline - stage - 1) + (chunks - 1) * pipeline + 1


def most_in_flight(settings: ForwardSettings, stage: int, sizes: Sequence[float]) -> float:
    """Sum over the chunks in flight, at the moment of the schedule when it is largest; `sizes`: of each of the stage's
    chunks.

    The interleaved schedule runs `pipeline` micro-batches through one chunk, then through the next; backward passes come
    in the same order from the last chunk on. Once as many are in flight as can be, each forward pass follows a backward one.
    """
    pipeline, chunks, most = settings.pipeline_model_parallel_size, len(sizes), chunks_in_flight(settings, stage)
    if len(set(sizes)) == 1:
        return most * sizes[0]
    order = [chunk for chunk in range(chunks) for _ in range(pipeline)]
    held = peak = sum(sizes[order[number % len(order)]] for number in range(most))
    for number in range(len(order)):
        held += sizes[order[(most + number) % len(order)]] - sizes[chunks - 1 - order[number]]
        peak = max(peak, held)
    return peak
