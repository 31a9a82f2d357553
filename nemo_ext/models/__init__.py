"""Model folders as Hugging Face lays them out: shapes, templates, tokenizers, files."""
