"""Asking a model about rows: the server, the requests, the completions."""
