"""Stages that gather and prepare problems."""
