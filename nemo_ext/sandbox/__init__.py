"""Runs Python that a model wrote: isolated, stateful sessions over HTTP, and the loop that joins them to generation."""
