"""Benchmarks, metrics of graded rows, their uncertainty, and the contract that makes two of them comparable."""
