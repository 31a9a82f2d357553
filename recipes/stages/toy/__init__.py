"""Stages that make the toy world: corpora and tiny models."""
