"""Stages that generate solutions."""
