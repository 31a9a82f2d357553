"""Rows of JSONL: read, passed through functions in parts that survive a kill, grouped, chosen."""
