"""Stages that publish data and models and report on a run."""
