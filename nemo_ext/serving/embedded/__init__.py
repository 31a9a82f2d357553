"""OpenAI-compatible CPU server for small Llama checkpoints."""
