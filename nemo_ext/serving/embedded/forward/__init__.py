"""The forward pass of Llama-like models in numpy and torch, with a paged KV cache."""
