"""Schemes of addresses that rows may come from, one per file: <name>://..., and `file` for addresses without one.

A module has FETCHED, whether its files appear while a stage runs; IS_PATH, whether an address is a path of this machine;
files(address, split, made_in) -> list[Path]; and patterns(address, split) -> list[str], which files would be among them.
"""
