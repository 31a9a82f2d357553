"""Supervised fine-tuning on megatron-core: the same trainer on GPUs and, over gloo, on a CPU."""
