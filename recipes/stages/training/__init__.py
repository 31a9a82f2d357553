"""Stages from rows to weights."""
