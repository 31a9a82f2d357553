"""Prompts: YAML files rendered from a row."""
