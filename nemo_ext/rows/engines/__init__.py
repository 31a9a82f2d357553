"""Engines that carry the parts of a row pass: processes of this machine."""
