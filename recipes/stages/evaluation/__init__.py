"""Stages that score models and compare scores."""
