"""One file per architecture: the costs of its layers; the file name is the `architecture` of a family.

Such a file has
    layers(shape)   LayerCost of each layer of the model, first to last: layers may differ
and imports neither torch nor megatron-core: launchers plan with it.
"""
