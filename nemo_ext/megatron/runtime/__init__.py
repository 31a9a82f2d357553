"""Process groups, passes through the pipeline, the optimizer, and what depends on megatron-core's version."""
