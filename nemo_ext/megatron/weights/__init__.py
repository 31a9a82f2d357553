"""Weights between Megatron checkpoints and Hugging Face folders: read, averaged, exported."""
